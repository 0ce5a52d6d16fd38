"""A real server on a real port, in a thread, and a plain client for it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

from lakebed.api.server import make_server


@contextmanager
def served(app, **options):
    """Serve `app` in a thread. The value is its port."""
    server = make_server(app, **{"port": 0} | options)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def call(port, path, body=None, **headers):
    """Status, JSON and headers. urllib closes the connection after each."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - our own server
            return response.status, json.load(response), lower(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), lower(error.headers)


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}
