"""The server's own limits: slow and huge heads, slow bodies, many connections, clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from lakebed import Analytics
from lakebed.api import create_app
from lakebed.api.server import connection_class
from tests.api.socket_server import call, served

pytestmark = pytest.mark.integration

EVENT = b'{"event":"a"}'
HEAD = b"POST /track HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def port(tmp_path):
    app = create_app(Analytics("default", root=tmp_path), body_timeout_s=0.4)
    limits = connection_class(head_timeout_s=0.4, max_head_bytes=8_000, max_connections=20)
    with served(app, http=limits, timeout_keep_alive=1) as server_port:
        yield server_port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def rest_of(client):
    """Read all bytes until the connection ends."""
    try:
        return b"".join(iter(lambda: client.recv(65536), b""))
    except ConnectionResetError:
        return b"reset"


def test_an_incomplete_head_is_408(port):
    """A connection without a request, or with half a head, is closed in time."""
    with contextlib.ExitStack() as stack:
        clients = {sent: stack.enter_context(connect(port)) for sent in (b"", b"POST", HEAD, HEAD + b"X-A: b\r\n")}
        for sent, client in clients.items():
            client.sendall(sent)
        for sent, client in clients.items():
            assert rest_of(client).startswith(b"HTTP/1.1 408 "), sent
    assert call(port, "/track", EVENT)[0] == 200


def test_a_slow_head_is_408(port):
    """A byte now and then does not keep a connection open for longer, neither at first nor after a request."""
    request = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(EVENT), EVENT)
    for first in (b"", request):
        with connect(port) as client:
            client.sendall(first)
            if first:
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            began = time.monotonic()
            ended = threading.Event()

            def drip(client=client, ended=ended):
                while not ended.wait(0.05):
                    try:
                        client.send(b"P" if not ended.is_set() else b"")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            client.sendall(b"X")
            dripping.start()
            answer = rest_of(client)
            ended.set()
            dripping.join()
            assert time.monotonic() - began < 5
            assert answer == b"reset" or answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))


def test_a_slow_body_is_408(port):
    """After its time, however regularly its bytes arrive."""
    with connect(port) as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        ended = threading.Event()

        def drip():
            while not ended.wait(0.05):
                try:
                    client.send(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        began = time.monotonic()
        answer = client.recv(65536)
        assert time.monotonic() - began < 5
        ended.set()
        dripping.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        if b"BODY_TIMEOUT" not in answer:  # head and body may come as one; after both there is nothing but a reset
            answer += client.recv(65536)
        assert b"BODY_TIMEOUT" in answer


def test_a_huge_head_is_431(port):
    """An endless head is refused, and its bytes are not kept."""
    with connect(port) as client:
        client.sendall(HEAD)
        try:
            for _ in range(1000):
                client.sendall(b"X-Filler: " + b"x" * 4000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        assert rest_of(client)[:13] in (b"HTTP/1.1 431 ", b"reset")


def test_too_many_connections(port):
    """A connection above the limit gets 503 with Retry-After; when another ends, a new one is accepted."""
    idle = [connect(port) for _ in range(20)]
    status, answer, headers = call(port, "/track", EVENT)
    assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "OVERLOADED", "1")
    for client in idle:
        client.close()
    deadline = time.monotonic() + 10
    while call(port, "/track", EVENT)[0] != 200:
        assert time.monotonic() < deadline


def test_a_client_that_does_not_read_is_disconnected(tmp_path):
    """In time, without an error, and it does not delay the server's end."""
    ended = threading.Event()

    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.sleep(0)
            return b"x" * 100_000

    async def endless(_request):
        response = StreamingResponse(Endless())

        async def stream(scope, receive, send):
            try:
                await response(scope, receive, send)
            finally:
                ended.set()

        return stream

    app = create_app(Analytics("default", root=tmp_path))
    app.routes.append(Route("/endless", endless))
    with served(app, http=connection_class(stalled_s=0.3)) as port, connect(port) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert ended.wait(10)
        assert call(port, "/track", EVENT)[0] == 200


def test_pipelined_requests(port):
    """Several requests in one packet are answered in order."""
    request = HEAD + b"Content-Length: %d\r\n\r\n%s"
    bodies = [json.dumps({"event": "a", "messageId": str(n)}).encode() for n in range(5)]
    with connect(port) as client:
        client.sendall(b"".join(request % (len(body), body) for body in bodies))
        answers = b""
        while answers.count(b'"messageId"') < 5:
            answers += client.recv(65536)
        positions = [answers.index(b'"messageId":"%d"' % n) for n in range(5)]
        assert positions == sorted(positions)


def test_an_idle_connection_is_used_again(port):
    """Within its time a connection waits for the next request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for pause in (0.5, 0):  # longer than a head may take
        connection.request("POST", "/track", EVENT)
        assert connection.getresponse().read()
        own = connection.sock
        threading.Event().wait(pause)
        assert connection.sock is own
    connection.close()


def test_limits_apply_to_any_app():
    """Limits on connections belong to the server, whatever app it runs."""
    outer = Starlette()
    with served(outer, http=connection_class(head_timeout_s=0.2)) as port, connect(port) as client:
        assert rest_of(client).startswith(b"HTTP/1.1 408 ")
