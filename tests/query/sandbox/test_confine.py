"""Rights that the operating system takes away, tried by a process that runs our code and not SQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lakebed
from lakebed.errors import QueryCrashed
from lakebed.query.sandbox.forkserver import shared
from lakebed.query.sandbox.messages import SandboxRequest

pytestmark = pytest.mark.integration

TRIES = """
import json, os, socket, sys
from lakebed.query.sandbox import confine

parent = os.getppid()
if sys.argv[2] == "nobody":
    os.setresuid(12345, 12345, 12345)
confined = confine.confine()
confine.bound_memory(confined, 64 << 20)
found = {"layers": confined.layers, "cwd": None}

def attempt(name, work):
    try:
        work()
        found[name] = "done"
    except BaseException as error:
        found[name] = type(error).__name__

attempt("read", lambda: open("/etc/passwd").read())
attempt("proc", lambda: open("/proc/self/environ").read())
attempt("write", lambda: open("here.txt", "w").write("x"))
attempt("write_tmp", lambda: open(sys.argv[1] + "/x.txt", "w").write("x"))
attempt("mkdir", lambda: os.mkdir(sys.argv[1] + "/dir"))
attempt("unlink", lambda: os.unlink(sys.argv[1] + "/there"))
attempt("rename", lambda: os.rename(sys.argv[1] + "/there", sys.argv[1] + "/gone"))
attempt("list", lambda: os.listdir(sys.argv[1]))
attempt("tcp", lambda: socket.socket().connect(("127.0.0.1", 9)))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("signal", lambda: os.kill(parent, 0))
attempt("memory", lambda: bytearray(512 << 20))
attempt("setuid", lambda: os.setuid(0) if os.getuid() else os.getuid())
found["uid"] = os.getuid()
os.write(1, json.dumps(found).encode())
"""
KEPT_AWAY = ("read", "proc", "write", "write_tmp", "mkdir", "unlink", "rename", "list", "tcp", "udp", "unix", "exec")


@pytest.fixture
def open_to_all():
    """A directory that every user could write to."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


def tried(place, user):
    (place / "there").touch()
    environment = {"PYTHONPATH": str(Path(lakebed.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", TRIES, str(place), user],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert process.returncode == 0, process.stderr
    assert [path.name for path in place.iterdir()] == ["there"]
    return json.loads(process.stdout)


def test_nothing_is_left(open_to_all):
    """A confined process reads and changes no file, opens no socket, runs no program and cannot take more memory."""
    results = tried(open_to_all, "")
    assert "seccomp" in results["layers"] or "landlock" in results["layers"]
    if "seccomp" in results["layers"]:
        assert {results[name] for name in (*KEPT_AWAY, "signal")} <= {"PermissionError", "FileNotFoundError"}
    assert results["memory"] == "MemoryError"
    if os.getuid() == 0:
        assert results["uid"] != 0
        assert results["setuid"] == "PermissionError"


@pytest.mark.skipif(
    os.getuid() != 0, reason="it takes root to become somebody else; without root the test above is this"
)
def test_no_rights_are_needed(open_to_all):
    """The same holds where the server does not run as root."""
    results = tried(open_to_all, "nobody")
    assert "chroot" not in results["layers"]
    assert {results[name] for name in (*KEPT_AWAY, "signal")} <= {"PermissionError", "FileNotFoundError"}
    assert results["memory"] == "MemoryError"


def test_a_child_has_nothing_to_look_at():
    """Neither it nor the process that forks it has an environment worth reading, a descriptor too many or a name."""
    os.environ["SECRET_OF_SERVER"] = "x"  # noqa: S105 - it is none
    shared().join()
    worker = shared().acquire()
    try:
        assert worker.wait_started()
        assert worker.plan(SandboxRequest("SELECT 1", None, [], 10, 256 << 20, 1), b"").layers
        server = shared().pid
        pids = [server, *map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())]
        for pid in pids:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"SECRET_OF_SERVER" not in environment
            assert b"PATH=" not in environment.replace(b"LD_LIBRARY_PATH=", b"")
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208, PTH115
            assert all(link == "/dev/null" or link.startswith(("socket:", "pipe:")) for link in links)
            assert sum(link.startswith("socket:") for link in links) == 1
            assert os.readlink(f"/proc/{pid}/cwd").endswith("(deleted)")  # noqa: PTH115
        limits = Path(f"/proc/{pids[1]}/status").read_text()
        assert "NoNewPrivs:\t1" in limits
    finally:
        worker.close()
        del os.environ["SECRET_OF_SERVER"]
        shared().leave()


def test_a_child_ends_by_itself():
    """Where the server does not come to kill it, the kernel ends a child a second after its time."""
    endless = "SELECT count(*) FROM range(100000000000) r WHERE hash(r.range) % 7 = 3"
    shared().join()
    worker = shared().acquire()
    try:
        assert worker.wait_started()
        worker.plan(SandboxRequest(endless, None, [], 0.5, 256 << 20, 1), b"")
        with pytest.raises(QueryCrashed):
            worker.answer([], {}, [], rows=1, max_bytes=1000)
    finally:
        worker.close()
        shared().leave()
