"""Stopping a busy server: every event that was answered with 200 is on disk, after any signal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lakebed import connect

pytestmark = pytest.mark.integration

SERVE = """
import sys
from lakebed import Analytics
from lakebed.api import create_app, serve
serve(create_app(Analytics("default", root=sys.argv[1])), port=int(sys.argv[2]), drain_s=5)
"""
SENDERS = 8


class Sender(threading.Thread):
    """Sends events one after another on one connection, and keeps the ids of those that were answered 200."""

    def __init__(self, port, number):
        super().__init__(name=f"sender-{number}")
        self.port = port
        self.number = number
        self.acknowledged = []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            for count in range(100_000):
                ids = [f"{self.number}-{count}-{n}" for n in range(5)]
                connection.request("POST", "/track/batch", json.dumps([{"event": "a", "messageId": i} for i in ids]))
                response = connection.getresponse()
                body = json.load(response)
                if response.status == 200:
                    assert body["stored"] == 5
                    self.acknowledged += ids
                if response.getheader("connection") == "close":
                    return
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_every_200_is_on_disk(tmp_path, how):
    """Under load, after a signal: the object reopens with every acknowledged event, once, and in bounded time.

    On SIGTERM and SIGINT each running request gets a complete answer, and the logs have no warning and no error.
    """
    port = free_port()
    arguments = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        wait_for(port, server)
        idle = socket.create_connection(("127.0.0.1", port))  # an idle connection does not delay the end
        senders = [Sender(port, number) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 20
        while sum(len(sender.acknowledged) for sender in senders) < 500:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        began = time.monotonic()
        server.send_signal(how)
        _, logs = server.communicate(timeout=30)
        seconds = time.monotonic() - began
        for sender in senders:
            sender.join(30)
        idle.close()
    acknowledged = {message_id for sender in senders for message_id in sender.acknowledged}
    assert len(acknowledged) >= 500
    assert seconds < 15
    with connect(tmp_path, "default") as analytics:
        stored = analytics.query("SELECT message_id FROM events").rows
        assert analytics.check() == []
    ids = [row[0] for row in stored]
    assert len(set(ids)) == len(ids)
    assert acknowledged <= set(ids)
    if how is not signal.SIGKILL:
        assert server.returncode in (0, -how)
        lines = [json.loads(line) for line in logs.splitlines()]
        assert not [line for line in lines if line["level"] not in ("INFO", "DEBUG")]
        assert set(ids) == acknowledged  # every request had an answer


def wait_for(port, server):
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as client:
            if not client.connect_ex(("127.0.0.1", port)):
                return
        assert server.poll() is None
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_a_stopping_server_ends_streams_at_once(tmp_path):
    """A listener of /live is disconnected at once, not after the time for draining."""
    port = free_port()
    arguments = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        wait_for(port, server)
        listener = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        listener.request("GET", "/live")
        assert listener.getresponse().status == 200
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
        assert time.monotonic() - began < 4
        listener.close()
