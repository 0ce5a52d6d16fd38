"""Health: alive is not ready, and ready means that an event could be stored."""

from __future__ import annotations

import errno
import os
import threading

import httpx
import pytest
from starlette.applications import Starlette

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.auth import Auth
from lakebed.api.routes.health import HealthRoutes
from lakebed.clock import ManualClock
from lakebed.disk import Disk


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


class Refusing(Disk):
    """Counts syncs, and fails them with the error number `fails`."""

    def __init__(self):
        self.syncs = 0
        self.fails = None
        self.free = None

    def sync(self, descriptor):
        self.syncs += 1
        if self.fails:
            raise OSError(self.fails, os.strerror(self.fails))
        super().sync(descriptor)

    def free_bytes(self, path):
        return super().free_bytes(path) if self.free is None else self.free


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path) as analytics:
        yield analytics
        assert await analytics.check() == []


async def test_healthy(tom, tmp_path):
    """All three routes say so, need no key, and leave no file and no event."""
    before = sorted(tmp_path.iterdir())
    async with client(create_app(tom)) as http:
        assert (await http.get("/health/live")).json() == {"status": "ok"}
        for path in ("/health", "/health/ready"):
            response = await http.get(path)
            assert response.status_code == 200
            assert response.json()["status"] == "ok"
            assert response.json()["checks"] == {"open": "ok", "keys": "ok", "disk": "ok", "log": "ok"}
    assert sorted(tmp_path.iterdir()) == before
    assert tom.stats().received == 0


async def test_a_namespace_without_objects_is_ready(tmp_path):
    """Its root is created if necessary; no object is."""
    async with Namespace(tmp_path / "new", Analytics) as namespace, client(create_app(namespace)) as http:
        assert (await http.get("/health/ready")).status_code == 200
        assert namespace.names() == []


async def test_an_app_that_is_not_open_is_alive_and_not_ready(tmp_path):
    """Before the lifespan has opened the target."""
    async with client(create_app(Analytics("tom", root=tmp_path))) as http:
        assert (await http.get("/health/live")).status_code == 200
        response = await http.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")


async def test_a_disk_that_cannot_be_written(tom):
    """A failing sync, or too little free space, is 503 with the reason and no path; then it recovers."""
    disk, clock = Refusing(), ManualClock()
    app = Starlette(routes=HealthRoutes(Auth(tom, clock), clock, disk).routes())
    async with client(app) as http:

        async def asked():
            clock.advance(1.5)
            response = await http.get("/health/ready")
            return response.status_code, response.json()["checks"]["disk"]

        disk.fails = errno.EIO
        assert await asked() == (503, "it cannot be written: Input/output error")
        disk.fails, disk.free = None, 1000
        assert await asked() == (503, "less is free than the headroom, so events are refused")
        disk.free = None
        assert await asked() == (200, "ok")


async def test_the_disk_is_checked_once_a_second(tom):
    """However often the route is called."""
    disk, clock = Refusing(), ManualClock()
    async with client(Starlette(routes=HealthRoutes(Auth(tom, clock), clock, disk).routes())) as http:
        for _ in range(20):
            assert (await http.get("/health/ready")).status_code == 200
        assert disk.syncs == 1
        clock.advance(1.0)
        await http.get("/health/ready")
        assert disk.syncs == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lakebed-ready")]
