"""A worker process that sends invalid messages: the server raises an error, and nothing else happens."""

from __future__ import annotations

import os
import socket
import struct
import subprocess

import pyarrow as pa
import pytest

from lakebed.errors import QueryCrashed, QueryError, QueryRefused, QueryTooLarge
from lakebed.query.sandbox import messages
from lakebed.query.sandbox.messages import SandboxRequest
from lakebed.query.sandbox.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

QUESTION = SandboxRequest("SELECT 1", None, [], 1, 1 << 20, 1)


def frame(tag, payload=b""):
    return struct.pack("<cI", tag, len(payload)) + payload


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def worker_that_sends():
    """Starts a worker whose child is a plain process, sends `data` as the child does, and returns the worker."""
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    parent_socket, child_socket = socket.socketpair()
    closed = []
    worker = WorkerProcess(parent_socket, closed.append)

    def say(data):
        descriptor = os.pidfd_open(process.pid)
        socket.send_fds(child_socket, [b"H"], [descriptor])
        os.close(descriptor)
        assert worker.wait_started()
        child_socket.sendall(data)
        child_socket.shutdown(socket.SHUT_WR)
        return worker

    say.child_socket = child_socket
    yield say
    worker.close()
    assert closed == [worker]
    process.stdin.close()
    assert process.wait() == -9, "close kills the child"
    child_socket.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        frame(b"P"),
        frame(b"P", b"{}"),
        frame(b"P", b'{"tables": [], "is_count": 1}'),
        frame(b"P", b"\xff"),
        frame(b"P", b"[" * 100_000),
        frame(b"D", b"x"),
        frame(b"?", b"x"),
        struct.pack("<cI", b"P", 0xFFFFFFFF),
        frame(b"E", b"{}"),
        frame(b"E", b'{"kind": "none", "message": ""}'),
    ],
)
def test_no_plan(worker_that_sends, data):
    """A message that is not a plan is an error of the query, and no announced length is trusted."""
    with pytest.raises(QueryCrashed):
        worker_that_sends(data).plan(QUESTION, b"")


def test_facts_are_places_only(worker_that_sends):
    """An error brings its place and nothing that could stand for something else."""
    payload = b'{"kind": "refused", "message": "no", "facts": {"line": 2, "message": "x", "hint": "y", "self": 1}}'
    with pytest.raises(QueryError) as refused:
        worker_that_sends(frame(b"E", payload)).plan(QUESTION, b"")
    assert (refused.value.message, refused.value.facts) == ("no", {"line": 2})


TABLE = pa.table({"text": ["a", "bb", "ccc"], "n": [1, 2, 3]})
WHOLE = stream(TABLE)
WRONG = WHOLE.replace(struct.pack("<4i", 0, 1, 3, 6), struct.pack("<4i", 0, 1, 3, 1 << 30))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(b"Z"),
        frame(b"D", b"junk") + frame(b"Z"),
        frame(b"D", WHOLE),
        frame(b"D", WHOLE[:-100]) + frame(b"Z"),
        frame(b"D", WRONG) + frame(b"Z"),
        frame(b"P", WHOLE) + frame(b"Z"),
        struct.pack("<cI", b"D", messages.MAX_BYTES + 1),
    ],
)
def test_no_answer(worker_that_sends, data):
    """Data that is not an Arrow stream, ends early, or points outside itself is an error."""
    assert WRONG != WHOLE
    with pytest.raises(QueryCrashed):
        worker_that_sends(data).answer([], {}, [], rows=10, max_bytes=1 << 20)


def test_an_answer(worker_that_sends):
    """An Arrow stream is the answer, in any number of pieces."""
    data = b"".join(frame(b"D", WHOLE[start : start + 7]) for start in range(0, len(WHOLE), 7)) + frame(b"Z")
    assert worker_that_sends(data).answer([], {}, [], rows=10, max_bytes=1 << 20).equals(TABLE)


def test_too_much(worker_that_sends):
    """Reading stops at the limit, however much the child sends."""
    with pytest.raises(QueryTooLarge):
        worker_that_sends(frame(b"D", b"x" * 1000) * 50).answer([], {}, [], rows=10, max_bytes=10_000)


def test_a_child_that_has_refused_and_gone_is_heard(worker_that_sends):
    """The answer counts, even if the worker answered and ended before the query was fully written."""
    refusal = frame(b"E", b'{"kind": "refused", "message": "no such table", "facts": {}}')
    worker = worker_that_sends(refusal)
    worker_that_sends.child_socket.close()
    with pytest.raises(QueryRefused, match="no such table"):
        worker.plan(QUESTION, b"")
