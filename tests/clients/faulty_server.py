"""The front door in a process of its own, that can be told to answer badly, and to die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock

ROOT = Path(__file__).parent.parent.parent
FAULTS, EVENTS = "/test/faults", "/test/events"
PATIENCE_S = 60
# What becomes of a request: it is refused before the app sees it, or stored and its answer lost.
UNAVAILABLE = {"status": 503}
RATE_LIMITED = {"status": 429, "headers": {"Retry-After": "1"}}
STORED_BUT_503 = {"store": True, "status": 503}
STORED_AND_CUT_OFF = {"store": True, "cut": True}
STORED_AND_KILLED = {"store": True, "kill": True}


class Door:
    """A server process on a port that stays its own, over the objects in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: dict[str, str] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_keys(self, names: Iterable[str]) -> None:
        """A write key for the object of each name. (An open door would take a while to see a new one.)"""
        keys = Keys(self.root, SystemClock())
        self.keys |= {name: keys.create(name, "write")[1] for name in names}

    def open(self) -> None:
        """Start, and return when it answers."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "tests.clients.faulty_server_main", str(self.root), str(self.port)]
        self._process = subprocess.Popen(command, env=environment)
        until = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < until, "the server does not answer"
            threading.Event().wait(0.02)

    def _answers(self) -> bool:
        with suppress(OSError):
            self._call(FAULTS, [])
            return True
        return False

    def faults(self, *faults: dict[str, Any]) -> None:
        """What becomes of the next POSTs of events; those after them are served."""
        self._call(FAULTS, faults)

    def left(self) -> int:
        """How many of the faults did not happen."""
        return self._call(FAULTS, None)["left"]

    def posts(self) -> list[str]:
        """The paths of the POSTs of events so far, those that failed too."""
        return self._call(FAULTS, None)["posts"]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the object of that name holds, in order."""
        return self._call(f"{EVENTS}?object={name}", None)

    def await_death(self) -> None:
        """Return when a fault has killed it."""
        assert self._process.wait(PATIENCE_S) == -signal.SIGKILL

    def close(self) -> None:
        """SIGTERM, and what it leaves is whole."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE_S) in (0, -signal.SIGTERM)

    def _call(self, path: str, body: Any) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, sent, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own
            return json.load(answer)
