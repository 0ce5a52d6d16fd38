"""HealthRoutes: whether the process is alive, and whether it can store events."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from pathlib import Path
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.openapi.document import operation
from lakebed.api.responses import json_response
from lakebed.clock import Clock
from lakebed.concurrency import run_in_thread
from lakebed.disk import Disk
from lakebed.errors import LakebedError
from lakebed.objects.namespace import Namespace
from lakebed.settings import Settings

__all__ = ["HealthRoutes"]

_KEPT_S = 1.0
_TIMEOUT_S = 5.0
_VERSION = importlib.metadata.version("lakebed")


class Alive(msgspec.Struct, frozen=True):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """The checks. Each is "ok" or names the problem."""

    status: Literal["ok", "unavailable"]
    version: str
    checks: dict[str, str]


class HealthRoutes:
    """`GET /health/live`, `GET /health/ready`, and `GET /health`, which is the same as ready. No route needs a key.

    Args:
        auth: gives the target and its keys.
        clock: measures how long one check serves all requests: a second, so that frequent requests spare the disk.
        disk: writes the probe.
    """

    def __init__(self, auth: Auth, clock: Clock, disk: Disk) -> None:
        self._auth = auth
        self._clock = clock
        self._disk = disk
        self._check: asyncio.Task[Readiness] | None = None
        self._checked_at = float("-inf")

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/health/live", self.live, methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
        ]

    @operation(answer=Alive)
    async def live(self, _request: Request) -> Response:
        """Whether this process answers. Restart it if it does not."""
        return json_response(Alive())

    @operation(answer=Readiness)
    async def ready(self, _request: Request) -> Response:
        """Whether events can be stored: a file is written, made durable and read back; 503 if not.

        It also checks free disk space, the keys, and, if one object is served, whether its log failed and has not
        succeeded since. One failing object of many does not make the others unreachable.
        """
        readiness = await self._readiness()
        return json_response(readiness, 200 if readiness.status == "ok" else 503)

    @operation(answer=Readiness)
    async def health(self, _request: Request) -> Response:
        """Whether events can be stored, as /health/ready answers."""
        readiness = await self._readiness()
        return json_response(readiness, 200 if readiness.status == "ok" else 503)

    async def _readiness(self) -> Readiness:
        now = self._clock.monotonic()
        if self._check is None or (self._check.done() and now - self._checked_at >= _KEPT_S):
            self._checked_at = now
            self._check = asyncio.create_task(self._checked())
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asyncio.shield(self._check)  # a disk that hangs gets one probe, however many requests come
        except TimeoutError:
            return Readiness("unavailable", _VERSION, {"disk": f"it has not answered for {_TIMEOUT_S:g} s"})

    async def _checked(self) -> Readiness:
        target = self._auth.target
        checks = {"open": "ok" if target.is_open else "the app's lifespan has not opened its target"}
        checks["keys"] = self._keys()
        checks["disk"] = await run_in_thread("ready", lambda: _probe(self._disk, target))
        if not isinstance(target, Namespace):
            checks["log"] = "it cannot be written or sealed" if getattr(target, "log_problems", None) else "ok"
        healthy = all(check == "ok" for check in checks.values())
        return Readiness("ok" if healthy else "unavailable", _VERSION, checks)

    def _keys(self) -> str:
        try:
            _ = self._auth.keyless
        except LakebedError:
            return "they cannot be read"
        return "ok"


def _probe(disk: Disk, target: Any) -> str:
    """Write, sync, read back and delete a file, as the log does with its own. The result has no path: it is public."""
    root: Path = target.root
    token = os.urandom(16)
    probe = root / f".ready-{token.hex()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = disk.create(probe)
        try:
            disk.write(descriptor, [token], 0)
            disk.sync(descriptor)
            content = os.pread(descriptor, len(token), 0)
        finally:
            disk.close(descriptor)
            disk.remove(probe)
        free, headroom = disk.free_bytes(root), _headroom(target)
    except OSError as error:
        return f"it cannot be written: {os.strerror(error.errno or 0)}"
    if content != token:
        return "it does not give back what was written"
    return "ok" if free >= headroom else "less is free than the headroom, so events are refused"


def _headroom(target: Any) -> int:
    settings: Settings = Settings.load(target.root) if isinstance(target, Namespace) else target.settings
    return settings.headroom_bytes
