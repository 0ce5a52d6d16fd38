"""The test's side of `worker.py`: start sessions, kill them, and collect their promises."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.crash.resource_limits import Peak

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 60.0


class SessionRunner:
    """Runs a worker that forks a process for each session. One session runs at a time."""

    kills = 0  # of all runners

    def __init__(self):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._rest = b""
        self.peak = Peak()
        self._expect("serving")

    def abandon(self):
        """Kill the worker and its session. A session that hangs prints its stack to stderr first."""
        for child in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGUSR1)
                time.sleep(0.5)
                os.kill(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _children(self):
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(child) for child in task.read_text().split()]

    def close(self):
        self._process.stdin.close()
        self._process.wait(_PATIENCE_S)
        self._process.stdout.close()

    def session(self, request, *, lines=None, seconds=0.0, heard=None):
        """Run one session to its end, or kill it `seconds` after its `lines`-th line; the first line is "ready".

        Returns its messages in order, and the signal that ended it, or None. `heard` is called with each message.
        """
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        process = None
        with contextlib.suppress(ProcessLookupError):  # it has ended by now
            process = os.pidfd_open(self._expect("pid")["pid"])
        try:
            return self._listen(process, lines, seconds, heard or (lambda _: None))
        finally:
            if process is not None:
                os.close(process)

    def _listen(self, process, lines, seconds, heard):
        messages = []
        deadline = time.monotonic() + seconds if lines == 0 else None
        while True:
            line = self._line(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if line is not None and line["kind"] == "ended":
                status = line["status"]
                self.peak.see(rss=line["rss"])
                SessionRunner.kills += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
                return messages, os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            if line is not None:
                messages.append(line)
                heard(line)
                if "descriptors" in line:
                    self.peak.see(descriptors=line["descriptors"], threads=line["threads"])
                if len(messages) == lines:
                    deadline = time.monotonic() + seconds
            else:
                deadline = None
                with contextlib.suppress(ProcessLookupError):  # it was faster
                    if process is not None:
                        signal.pidfd_send_signal(process, signal.SIGKILL)

    def _expect(self, kind):
        line = self._line(None)
        assert line["kind"] == kind, line
        return line

    def _line(self, timeout):
        """The next line, or None if there is none in time. Fails if the worker prints nothing for a minute."""
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_S if timeout is None else timeout)
            if not readable:
                assert timeout is not None, "the worker hangs"
                return None
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            assert data, "the worker is gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)
