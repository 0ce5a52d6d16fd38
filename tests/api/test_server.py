"""serve(): a real server on a real port, for this machine only."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error

import pytest

from lakebed import Analytics, Namespace, connect
from lakebed.api import create_app, serve
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock
from lakebed.errors import InvalidSettings
from tests.api.socket_server import call, served

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def port(root):
    """A server without keys. Only the first test counts its events."""
    with served(create_app(Namespace(root, Analytics), max_body_bytes=1 << 20)) as server_port:
        yield server_port


def test_over_a_real_socket(port, root):
    """Track, batch, stats, dau and errors through uvicorn; after it stopped the events are on disk."""
    for seq in range(2):
        event = b'{"event":"a","userId":"u","messageId":"a%d"}' % seq
        assert call(port, "/track", event)[:2] == (200, {"seq": seq, "messageId": f"a{seq}", "status": "stored"})
    lines = b"".join(b'{"event":"b","messageId":"m%d"}\n' % n for n in range(1000))
    status, body, headers = call(port, "/track/batch", lines)
    assert (status, body["stored"], len(body["events"])) == (200, 1000, 1000)
    assert "server" not in headers
    assert call(port, "/stats")[1]["totals"] == {"b": 1000, "a": 2}
    assert call(port, "/dau?days=1")[1][0]["events"] == 1002
    assert call(port, "/nope")[1]["error"]["code"] == "NOT_FOUND"
    assert call(port, "/dau", b"")[:1] == (405,)
    assert (root / "default" / "log").is_dir()


@pytest.mark.parametrize(
    ("path", "status", "code", "host"),
    [
        ("/track/batch", 413, "BODY_TOO_LARGE", "127.0.0.1"),
        ("/nope", 404, "NOT_FOUND", "127.0.0.1"),
        ("/stats", 405, "METHOD_NOT_ALLOWED", "127.0.0.1"),
        ("/track", 403, "NOT_LOCAL", "evil.example"),
    ],
)
def test_a_response_before_the_body_was_read(port, path, status, code, host):
    """It reaches a client that sends its whole body first, with and without a length; the connection then ends.

    The kernel resets a connection that is closed with unread bytes in it, and the answer would be lost.
    """
    for _ in range(5):
        actual, body, headers = call(port, path, b"x" * (3 << 20), Host=host)
        assert (actual, body["error"]["code"], headers["connection"]) == (status, code, "close")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, iter([b"x" * 65536] * 48), {"Host": host}, encode_chunked=True)
    assert connection.getresponse().status == status
    connection.close()


def test_a_small_unread_body_keeps_the_connection(port):
    """A refused request with a small body is followed by the next on the same connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(3):
        connection.request("POST", "/nope", b"x" * 60_000)
        response = connection.getresponse()
        assert (response.status, response.getheader("connection"), response.will_close) == (404, None, False)
        response.read()
    connection.close()


def test_expect_100_continue(port):
    """A refusal comes instead of `100 Continue`; otherwise that comes first, then the response."""
    head = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.format("/track/batch", 3 << 20).encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))  # to the end of the connection
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.format("/track", 13).encode())
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"event":"a"}')
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_disconnects_does_not_affect_others(port):
    """Half a body and a closed socket: the next request is answered."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /track HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
    assert call(port, "/track", b'{"event":"a"}')[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
)
def test_requests_for_other_hosts_are_refused(port, headers, status):
    """A browser's request for another site (DNS rebinding, a foreign page) is refused before it has an effect."""
    assert call(port, "/track", b'{"event":"a"}')[0] == 200
    code, body, _ = call(port, "/stats", None, **headers)
    assert code == status
    assert body["error"]["code"] == "NOT_LOCAL" if status == 403 else body["totals"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.1.example.com"])  # noqa: S104
def test_a_keyless_server_binds_loopback_only(tmp_path, host):
    """Without keys the app is not served to a network: the error says so, and nothing is bound."""
    with pytest.raises(InvalidSettings, match="no authentication"):
        serve(create_app(Namespace(tmp_path, Analytics)), host=host)


def test_a_server_with_keys_binds_any_address(tmp_path):
    """From the first key on the server may listen anywhere, and accepts any Host header."""
    Keys(tmp_path, SystemClock()).create("tom", "read")
    with served(create_app(Namespace(tmp_path, Analytics)), host="0.0.0.0") as port:  # noqa: S104 - what is tested
        status, body, _ = call(port, "/stats", None, Host="analytics.example", Origin="https://elsewhere.example")
        assert (status, body["error"]["code"]) == (401, "KEY_MISSING")


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", b"403"), ("http://127.0.0.1:{port}", b"101")])
def test_web_sockets_of_this_machine_only(port, origin, status):
    """A foreign page cannot open a WebSocket to a server without keys: browsers send no preflight for it."""
    head = (
        f"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Origin: {origin.format(port=port)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.encode())
        assert client.recv(65536).split()[1] == status


def test_serve_from_the_command_line(tmp_path):
    """`python -m lakebed serve` serves a namespace, and SIGTERM ends it cleanly with every event stored."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "lakebed", "serve", "--root", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as server:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert call(port, "/track", b'{"event":"a"}')[1]["status"] == "stored"
                break
            except urllib.error.URLError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                threading.Event().wait(0.05)
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    assert server.returncode in (0, -signal.SIGTERM), errors
    assert "Traceback" not in errors
    with connect(tmp_path, "default") as tom:
        assert tom.stats().totals == {"a": 1}
        assert tom.check() == []


def test_importing_lakebed_imports_no_server():
    """Embedding needs neither starlette nor uvicorn."""
    code = "import sys, lakebed; print({'starlette', 'uvicorn', 'lakebed.api', 'anyio'} & set(sys.modules))"
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert process.stdout == "set()\n"
