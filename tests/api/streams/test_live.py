"""Live: one computation and one message a second for all who listen."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.auth import Auth
from lakebed.api.errors import Refusal, error_handlers
from lakebed.api.server import make_server
from lakebed.api.streams.live import HEARTBEAT, Broadcast, LiveStream
from lakebed.errors import ObjectClosed
from lakebed.monitoring.live_snapshot import LiveSnapshot

FIELDS = ["at", "name", "received", "stored", "duplicate", "rejected", "last_minute", "last_hour", "active"]
FIELDS += ["active_s", "next_seq", "watermark", "seconds", "minutes", "names", "top_hour", "top_ever", "newest"]
FIELDS += ["events"]


class Reading(msgspec.Struct):
    at: int
    value: int


class Source:
    """The source of broadcasts in tests: `at` grows with each reading; the test sets `value`."""

    def __init__(self):
        self.at = self.value = 0
        self.error = None

    async def take(self):
        self.at += 1
        if self.error:
            raise self.error
        return Reading(self.at, self.value)


def broadcast(source, interval_s=0.005, **options):
    return Broadcast(source.take, interval_s, lambda _: None, **options)


def value(message):
    assert message.startswith(b"data: ")
    assert message.endswith(b"\n\n")
    return json.loads(message[6:])["value"]


# Broadcast


async def test_thousands_share_one_computation():
    """Five thousand listeners get the same bytes object, computed once for each message."""
    source = Source()
    sender = broadcast(source)
    listeners = [sender.join() for _ in range(5000)]
    for expected in range(3):
        source.value = expected
        messages = await asyncio.gather(*(listener.next() for listener in listeners))
        assert len({id(message) for message in messages}) == 1
        assert value(messages[0]) == expected
        for listener in listeners:
            assert listener.skipped == 0
        source.value = expected + 1  # an unchanged value is not sent
    assert source.at < 5000
    assert sender.taken == source.at
    await sender.close()


async def test_a_slow_listener_skips_messages():
    """It holds one message, the newest; other listeners are not delayed."""
    source = Source()
    sender = broadcast(source)
    slow, quick = sender.join(), sender.join()
    for number in range(20):
        source.value = number
        while value(await quick.next()) != number:
            pass
    assert slow.skipped >= 15
    assert value(await slow.next()) == 19
    await sender.close()


async def test_unchanged_messages_are_not_sent():
    """A new `at` alone is no message; a heartbeat shows that the stream is alive, and never replaces a message."""
    source = Source()
    sender = broadcast(source, beat_s=0.02)
    listener = sender.join()
    assert value(await listener.next()) == 0
    assert await listener.next() is HEARTBEAT
    second = sender.join()
    assert value(await second.next()) == 0
    listener.offer(b"x")
    listener.offer(HEARTBEAT)
    assert await listener.next() == b"x"
    await sender.close()
    assert await listener.next() is None


async def test_it_stops_without_listeners_and_starts_again():
    """Nothing is computed without a listener; `on_end` is called; a listener of an ended broadcast is served."""
    source, ended = Source(), asyncio.Event()
    sender = Broadcast(source.take, 0.005, lambda _: ended.set())
    listener = sender.join()
    await listener.next()
    sender.leave(listener)
    await ended.wait()
    taken_before = sender.taken
    source.value = 7
    second = sender.join()
    messages = [value(await second.next())]
    while messages[-1] != 7:
        messages.append(value(await second.next()))
    assert sender.taken > taken_before
    await sender.close()


async def test_a_failure_ends_all_streams(caplog):
    """With the kind of the error, without its message, which may have paths; then the stream ends."""
    source = Source()
    sender = broadcast(source)
    listeners = [sender.join() for _ in range(3)]
    for listener in listeners:
        await listener.next()
    source.error = ObjectClosed("/secret/path is closed")
    for listener in listeners:
        assert await listener.next() == b'event: trouble\ndata: {"code":"ObjectClosed"}\n\n'
        assert await listener.next() is None
    assert "/secret/path" in caplog.text
    assert len(sender) == 0


async def test_a_costly_message_comes_less_often():
    """Computing messages takes at most a twentieth of the time, whatever the interval."""
    source = Source()
    loop, times = asyncio.get_running_loop(), []

    async def take():
        times.append(loop.time())
        end = loop.time() + 0.01
        while loop.time() < end:
            pass
        source.value += 1
        return await source.take()

    sender = Broadcast(take, 0.001, lambda _: None)
    listener = sender.join()
    for _ in range(3):
        await listener.next()
    await sender.close()
    assert times[2] - times[1] >= 0.19


# Over HTTP


@pytest.fixture
def server(tmp_path):
    server = make_server(create_app(Namespace(tmp_path, Analytics)), port=0, log_level="warning")
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    server.port = server.servers[0].sockets[0].getsockname()[1]
    server.thread = thread
    yield server
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def track(server, **event):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/track", json.dumps(event))
    assert connection.getresponse().status == 200
    connection.close()


class Listening:
    def __init__(self, server, **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        self.connection.request("GET", "/live", headers=headers)
        self.response = self.connection.getresponse()

    def pulse(self):
        while not (line := self.response.readline()).startswith(b"data: "):
            assert line
        return json.loads(line[6:])


def test_a_stream_over_a_socket(server):
    """`retry:` first, then whole messages: the second has the event that came after the first; not cached."""
    track(server, event="A", userId="ann", properties={"secret": 1})
    listening = Listening(server, **{"Last-Event-ID": "41"})
    response = listening.response
    assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert response.getheader("cache-control") == "no-store"
    assert response.getheader("content-length") is None
    assert response.readline() == b"retry: 2000\n"
    first = listening.pulse()
    assert list(first) == FIELDS
    assert (first["name"], first["next_seq"], first["active"]) == ("default", 1, 1)
    assert "secret" not in json.dumps(first)
    track(server, event="B" * 200, anonymousId="x" * 200)
    second = listening.pulse()
    assert (second["next_seq"], second["active"], second["last_minute"]) == (2, 2, 2)
    assert [event["event"] for event in second["newest"]] == ["B" * 200, "A"]
    assert second["newest"][0]["person"] == "x" * 100
    assert (len(second["seconds"]), sum(second["seconds"])) == (60, 2)
    assert (len(second["minutes"]), sum(second["minutes"])) == (60, 2)
    listening.connection.close()


def test_streams_end_when_the_server_stops(server):
    """A listener does not delay the server: its stream ends properly, long before the time for draining is over."""
    track(server, event="A")
    listening = Listening(server)
    listening.pulse()
    started = time.monotonic()
    server.should_exit = True
    assert b"trouble" not in listening.response.read()
    server.thread.join(20)
    assert not server.thread.is_alive()
    assert time.monotonic() - started < 5
    listening.connection.close()


def test_three_hundred_sockets(server):
    """All get the changes in a few messages that they share; the object is not called for each of them."""
    track(server, event="A")
    streams = [Listening(server) for _ in range(300)]
    for stream in streams:
        stream.pulse()
    track(server, event="B")
    timestamps = []
    for stream in streams:
        while (pulse := stream.pulse())["next_seq"] < 2:
            pass
        timestamps.append(pulse["at"])
    assert len(timestamps) == 300
    assert len(set(timestamps)) <= 10  # a slow machine may need several seconds to read them all
    for stream in streams:
        stream.connection.close()
    track(server, event="C")  # the server still works


async def test_too_many_listeners_are_503(tmp_path):
    """Above the limit, and while the server stops, with Retry-After."""
    async with Analytics("tom", root=tmp_path) as tom:
        live = LiveStream(Auth(tom), max_listeners=0)
        app = Starlette(routes=live.routes(), exception_handlers=error_handlers)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for _ in range(2):
                response = await client.get("/live")
                assert (response.status_code, response.headers["retry-after"]) == (503, "5")
                await live.close()


async def test_an_app_that_starts_again_streams_again(tmp_path):
    """The end of the lifespan ends streams; its next start accepts listeners again."""
    app = create_app(Analytics("tom", root=tmp_path))
    for _ in range(2):
        async with app.router.lifespan_context(app):
            listened = Listened(app)
            await listened.got.wait()
        await listened.task
        assert listened.sent[0]["status"] == 200
        assert listened.sent[-1]["more_body"] is False


def test_a_listener_before_the_first_event(server, tmp_path):
    """An object that does not exist is not created by a listener; its first event arrives on the same stream."""
    listening = Listening(server)
    nothing = json.loads(msgspec.json.encode(LiveSnapshot(at="", name="default")))
    assert listening.pulse() | {"at": ""} == nothing
    assert not (tmp_path / "default").exists()
    track(server, event="A")
    assert listening.pulse()["next_seq"] == 1
    listening.connection.close()


class ShutGate(Auth):
    """A gate that closes behind those who were let in, as when a key is revoked."""

    shut = False

    def admit(self, request, scope, **options):
        if self.shut:
            raise Refusal(401, "UNAUTHORIZED", "The key was revoked")
        return super().admit(request, scope, **options)


class Listened:
    """A stream of an app without a server: the messages sent so far, and a client that may stall."""

    def __init__(self, app):
        self.sent = []
        self.got = asyncio.Event()
        self.stalls = False
        scope = {"type": "http", "method": "GET", "path": "/live", "headers": [], "query_string": b""}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        await asyncio.Event().wait()

    async def _send(self, message):
        self.sent.append(message)
        if message.get("body", b"").startswith(b"data: "):
            self.got.set()
            if self.stalls:
                await asyncio.Event().wait()


async def test_a_revoked_key_ends_its_stream(tmp_path, monkeypatch):
    """A listener without the right to read gets no further message: auth is checked again while the stream runs."""
    monkeypatch.setattr("lakebed.api.streams.live._CHECK_AGAIN_S", 0)
    async with Analytics("tom", root=tmp_path) as tom:
        gate = ShutGate(tom)
        live = LiveStream(gate, interval_s=0.01)
        listened = Listened(Starlette(routes=live.routes()))
        await listened.got.wait()
        gate.shut = True
        await tom.track("A")
        await listened.task
        assert listened.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        assert not [message for message in listened.sent if b'"next_seq":1' in message.get("body", b"")]
        await live.close()
        assert await tom.check() == []


async def test_a_listener_that_does_not_read_is_disconnected(tmp_path, monkeypatch):
    """One that reads is not disturbed, and nothing is left behind."""
    monkeypatch.setattr("lakebed.api.streams.live._STALLED_S", 0.05)
    async with Analytics("tom", root=tmp_path) as tom:
        live = LiveStream(Auth(tom), interval_s=0.01)
        stalled, reading = Listened(Starlette(routes=live.routes())), Listened(Starlette(routes=live.routes()))
        stalled.stalls = True
        await stalled.task
        reading.got.clear()
        await tom.track("A")
        await reading.got.wait()
        assert [len(sender) for sender in live._broadcasts.values()] == [1]
        await live.close()
        await reading.task
        assert live._broadcasts == {}
        assert await tom.check() == []
