"""Keys that are made and revoked from a shell while a server runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.server import make_server

pytestmark = pytest.mark.integration

pytest.importorskip("typer")


def shell(*arguments):
    command = [sys.executable, "-m", "lakebed", "keys", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def status(port, token):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/track", b'{"event":"a"}', {"X-API-Key": token})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - our own server
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def until_refused(port, token):
    began = time.monotonic()
    while (code := status(port, token)) == 200:
        assert time.monotonic() - began < 10
    assert code == 401


def test_a_running_server_follows_the_key_commands(tmp_path):
    """It needs no key until one is created; a revoked one is refused within about a second, and others still work."""
    server = make_server(create_app(Namespace(tmp_path, Analytics)), port=0, log_level="warning")
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        assert status(port, "anything") == 200
        options = ("--root", str(tmp_path), "--object", "shop")
        first, second = (shell("create", "write", *options) for _ in range(2))
        until_refused(port, "anything")
        assert [status(port, token) for token in ("anything", first["key"], second["key"])] == [401, 200, 200]
        shell("revoke", first["id"], "--root", str(tmp_path), "--yes")
        until_refused(port, first["key"])
        assert status(port, second["key"]) == 200
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
