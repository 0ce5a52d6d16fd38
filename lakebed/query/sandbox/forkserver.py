"""ForkServer: a process, shared by all objects, that forks a worker process for each untrusted query.

Starting a worker from scratch costs about 0.2 s of processor time, nearly all of it imports. Forking it from a process
that has imported everything, and has neither threads nor data, costs a few milliseconds. The server itself is never
forked: it has threads.
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

_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import lakebed.query.sandbox.worker_main as worker; "
_CODE += "worker.serve(int(sys.argv[2]), int(sys.argv[3]))"
# The only variables that are passed on; the others may hold secrets.
_PASSED_VARIABLES = ("LD_LIBRARY_PATH", "TMPDIR")
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
_ENDS_WITHIN_S = 5.0


class ForkServer:
    """Starts a process at the first query, and ends it when the last object leaves. Thread-safe; methods block.

    Args:
        workers: limit of simultaneous worker processes, for all objects together.
    """

    def __init__(self, workers: int) -> None:
        self._limit: Final = workers
        self._lock = threading.Lock()  # protects all below
        self._users = 0
        self._workers: set[WorkerProcess] = set()
        self._spare: WorkerProcess | None = None  # started ahead, waiting for a query
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def limit(self) -> int:
        """The limit of worker processes that run at the same time."""
        return self._limit

    @property
    def running(self) -> int:
        """The number of worker processes that run now."""
        with self._lock:
            return len(self._workers)

    @property
    def users(self) -> int:
        """The number of objects that have joined."""
        with self._lock:
            return self._users

    @property
    def pid(self) -> int | None:
        """The process id of the fork server; None if it does not run."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def join(self) -> None:
        """Register an object that is going to run queries."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Unregister an object. When the last one leaves, the fork server's processes end."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def acquire(self) -> WorkerProcess:
        """Get a worker process for one query. The caller must close it.

        Raises:
            QueryBusy: the limit of worker processes is reached.
            QueryCrashed: no process could be started.
        """
        with self._lock:
            if len(self._workers) >= self._limit:
                raise QueryBusy(
                    f"all {self._limit} worker processes for untrusted queries are in use",
                    hint="Ask again in a second",
                    limit=self._limit,
                    scope="server",
                )
            if self._spare is not None and self._spare.has_ended:
                self._spare.release()
                self._spare = None
            worker = self._fork() if self._spare is None else self._spare
            self._spare = None
            self._workers.add(worker)
            return worker

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _fork(self) -> WorkerProcess:
        own_end, worker_end = socket.socketpair()
        with worker_end:
            if not self._is_running() or not self._send(worker_end):
                self._stop()
                self._start()
                if not self._send(worker_end):
                    own_end.close()
                    raise QueryCrashed("the process that runs queries could not be started", hint="Ask again")
        return WorkerProcess(own_end, self._closed)

    def _send(self, worker_end: socket.socket) -> bool:
        assert self._control is not None  # noqa: S101 - _start made it
        try:
            socket.send_fds(self._control, [b"C"], [worker_end.fileno()])
        except OSError:  # the fork server has just ended
            return False
        return True

    def _closed(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._workers.discard(worker)
            if self._users and self._spare is None and self._is_running():
                self._spare = self._fork()  # after the answer, so that it does not delay it

    def _start(self) -> None:
        self._control, server_end = socket.socketpair()
        paths = json.dumps([os.path.abspath(path) for path in sys.path])  # noqa: PTH100 - "" is the current directory
        arguments = ["-I", "-B", "-W", "ignore", "-c", _CODE, paths, str(server_end.fileno()), str(os.getpid())]
        with server_end:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with our code
                [sys.executable, *arguments],
                env=_ENVIRONMENT | {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(server_end.fileno(),),
                start_new_session=True,  # Ctrl-C goes to the server, which ends the workers itself
            )

    def _stop(self) -> None:
        if self._spare is not None:
            spare, self._spare = self._spare, None
            spare.release()
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
    """The fork server that all objects of this process share."""
    return _shared


_shared = ForkServer(max(4, 2 * len(os.sched_getaffinity(0))))
