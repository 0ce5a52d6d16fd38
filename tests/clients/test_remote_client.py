"""RemoteClient: how a server's failures reach the commands."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lakebed.clients.remote import RemoteClient
from lakebed.errors import AccessDenied, Backpressure, InvalidSettings, LakebedError, Unreachable

CALLS = {
    "rpc": lambda client: client.call("stats"),
    "table": lambda client: client.table("query", "SELECT 1"),
    "report": lambda client: client.table("top", what="event"),
    "dead letters": lambda client: client.dead_letters(limit=1, before=None, reason=None),
}


def raised(call, client):
    """The error that a call raises, or None."""
    try:
        call(client)
    except LakebedError as error:
        return error
    return None


@pytest.fixture
def answering():
    """Starts a server that answers every request with a status and a body; gives its address."""
    servers = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.do_POST()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="answering")
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, LakebedError),
        (400, LakebedError),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, LakebedError),
        (429, Backpressure),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
def test_a_status_becomes_an_error_with_the_words_of_the_server(answering, status, kind):
    """The same class and the same message, whichever way the verb goes."""
    url = answering(status, json.dumps({"error": {"code": "CODE", "message": "the reason"}}).encode())
    with RemoteClient(url) as client:
        errors = {name: raised(call, client) for name, call in CALLS.items()}
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(CALLS, kind)
    for name, error in errors.items():
        assert str(error).startswith(f"the server answers {status}: the reason"), name
        assert (error.status, error.code) == (status, "CODE"), name


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff"])
def test_another_kind_of_server(answering, body):
    """Unreachable, with the address."""
    url = answering(200, body)
    with RemoteClient(url) as client:
        errors = {name: raised(call, client) for name, call in CALLS.items()}
    for name, error in errors.items():
        assert isinstance(error, Unreachable), name
        assert url in str(error), name


def test_no_server():
    """Unreachable, with the address and the next step."""
    with RemoteClient("http://127.0.0.1:9") as client:
        errors = {name: raised(call, client) for name, call in CALLS.items()}
    for name, error in errors.items():
        assert isinstance(error, Unreachable), name
        assert "lakebed serve" in str(error), name


@pytest.mark.parametrize("url", ["ftp://x", "x", "ws://x", "https://", "http://user@x", "http://x?key=1"])
def test_addresses(url):
    """Only http:// and https:// with a host, and nothing in it that belongs elsewhere."""
    with pytest.raises(InvalidSettings):
        RemoteClient(url)
