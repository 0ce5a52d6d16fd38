"""ForkServer: the one process that forks a child for each question, for all objects of this process.

A child takes some 0.2 s of processor time to start by itself, nearly all of it imports. Forked from a process that has
imported everything, and has neither threads of its own nor data, it takes a few milliseconds. This process is never
forked itself: it has threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import Final

from lakebed.errors import QueryBusy, QueryCrashed
from lakebed.query.sandbox.worker_process import WorkerProcess

__all__ = ["ForkServer", "shared"]

_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import lakebed.query.sandbox.worker_main as guest; "
_CODE += "guest.serve(int(sys.argv[2]), int(sys.argv[3]))"
# What a library loads from where is the only thing of the environment that is passed on: no secret is.
_KEPT = ("LD_LIBRARY_PATH", "TMPDIR")
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
_ENDS_WITHIN_S = 5.0


class ForkServer:
    """Starts with the first question, ends with the last user. Safe between threads; its methods block.

    Args:
        cells: children at the same time, over all objects.
    """

    def __init__(self, cells: int) -> None:
        self._most: Final = cells
        self._lock = threading.Lock()  # protects all below
        self._users = 0
        self._cells: set[WorkerProcess] = set()
        self._spare: WorkerProcess | None = None  # connected already, waiting for its question
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def most(self) -> int:
        """Children that may run at the same time."""
        return self._most

    @property
    def running(self) -> int:
        """Children that run."""
        with self._lock:
            return len(self._cells)

    @property
    def users(self) -> int:
        """Objects that asked lately."""
        with self._lock:
            return self._users

    @property
    def pid(self) -> int | None:
        """The process that forks, if it runs."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def join(self) -> None:
        """Say that an object may ask."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Say that it does so no more; after the last one no process is left."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def take(self) -> WorkerProcess:
        """A child for one question; the caller closes it.

        Raises:
            QueryBusy: there are as many as there may be.
        """
        with self._lock:
            if len(self._cells) >= self._most:
                raise QueryBusy(
                    f"{self._most} queries of all objects run already",
                    hint="Ask again in a second",
                    limit=self._most,
                    scope="server",
                )
            if self._spare is not None and self._spare.is_gone:
                self._spare.abandon()
                self._spare = None
            cell = self._fork() if self._spare is None else self._spare
            self._spare = None
            self._cells.add(cell)
            return cell

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _fork(self) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            if not self._is_running() or not self._send(theirs):
                self._stop()
                self._start()
                if not self._send(theirs):
                    ours.close()
                    raise QueryCrashed("the process that runs queries does not start", hint="Ask again")
        return WorkerProcess(ours, self._closed)

    def _send(self, theirs: socket.socket) -> bool:
        assert self._control is not None  # noqa: S101 - _start made it
        try:
            socket.send_fds(self._control, [b"C"], [theirs.fileno()])
        except OSError:  # it has just ended
            return False
        return True

    def _closed(self, cell: WorkerProcess) -> None:
        with self._lock:
            self._cells.discard(cell)
            if self._users and self._spare is None and self._is_running():
                self._spare = self._fork()  # after the answer: it would take time from it

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        paths = json.dumps([os.path.abspath(path) for path in sys.path])  # noqa: PTH100 - "" is the current directory
        arguments = ["-I", "-B", "-W", "ignore", "-c", _CODE, paths, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with code of ours
                [sys.executable, *arguments],
                env=_ENVIRONMENT | {name: os.environ[name] for name in _KEPT if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server, which ends the children itself
            )

    def _stop(self) -> None:
        if self._spare is not None:
            spare, self._spare = self._spare, None
            spare.abandon()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_WITHIN_S)
            self._process.kill()
            self._process.wait()
            self._process = None


def shared() -> ForkServer:
    """The one of this process."""
    return _shared


_shared = ForkServer(max(4, 2 * len(os.sched_getaffinity(0))))
