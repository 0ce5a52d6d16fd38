"""The WebSocket at /rpc: who may connect, for how long, and the limits for a client that misbehaves."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lakebed import Analytics, ManualClock, Namespace
from lakebed.api.auth import Auth
from lakebed.api.body import Body
from lakebed.api.errors import error_handlers
from lakebed.api.rpc.endpoint import RpcEndpoint
from lakebed.api.server import make_server
from lakebed.auth.keys import Keys
from lakebed.rpc.capnweb.codec import Limits
from tests.running_server import serving

pytestmark = pytest.mark.integration  # sockets at a real port


@pytest.fixture
async def objects(tmp_path):
    async with Namespace(tmp_path, Analytics, headroom_bytes=0) as namespace:
        yield namespace
        assert namespace.check() == []


@pytest.fixture
def serve(objects):
    """Serve `/rpc` with these limits; return its endpoint and its server."""

    def found(**limits):
        rpc = RpcEndpoint(Auth(objects, ManualClock()), Body(1 << 20, 10), **limits)
        return rpc, serving(
            make_server(Starlette(routes=rpc.routes(), exception_handlers=error_handlers), port=0, log_level="warning")
        )

    return found


UPGRADE = (
    b"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(text):
    """A short text frame, masked with zeros."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text.encode()


async def said(socket):
    """The messages until the server closes, and the code and reason of the close."""
    messages = []
    try:
        async with asyncio.timeout(10):
            while True:
                messages.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        return messages, (closed.rcvd.code, closed.rcvd.reason)


async def test_pages_of_other_sites_do_not_connect_without_keys(serve, objects):
    """A browser says where its page is from; with keys it may be anywhere, since it must show one."""
    rpc, server = serve()
    async with server as port:
        url = f"ws://127.0.0.1:{port}/rpc"
        for origin in ("https://evil.example", "http://127.0.0.1:1", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                await connect(url, origin=origin)
        async with connect(url, origin=f"http://127.0.0.1:{port}") as socket:
            await socket.send('["push",1]')
    Keys(objects.root).create("shop", "read")
    assert rpc.peers == {}


async def test_a_page_of_another_site_may_connect_with_keys(serve, objects):
    """The key that it shows decides what it can reach."""
    _, token = Keys(objects.root).create("shop", "admin")
    _, server = serve()
    async with server as port, connect(f"ws://127.0.0.1:{port}/rpc", origin="http://127.0.0.1:1") as socket:
        await socket.send(json.dumps(["push", ["pipeline", 0, ["authenticate"], [token]]]))
        await socket.send('["push",["pipeline",1,["track"],["x"]]]')
        await socket.send('["pull",2]')
        kind, number, receipt = json.loads(await socket.recv())
        assert (kind, number, receipt["status"]) == ("resolve", 2, "stored")


async def test_who_shows_no_key_is_sent_away(serve, objects):
    """After a while; and at once after too many wrong ones."""
    Keys(objects.root).create("shop", "admin")
    rpc, server = serve(login_s=0.05, limits=Limits(mistakes=3))
    async with server as port:
        async with connect(f"ws://127.0.0.1:{port}/rpc") as socket:
            messages, (code, reason) = await said(socket)
            assert (messages[0][0], code) == ("abort", 3000)
            assert "no key was shown" in reason
        async with connect(f"ws://127.0.0.1:{port}/rpc") as socket:
            for _ in range(3):
                await socket.send('["push",["pipeline",0,["authenticate"],["lk_wrong"]]]')
            messages, (code, reason) = await said(socket)
            assert "too many wrong keys" in reason
    assert rpc.peers == {}


async def test_who_says_nothing_is_sent_away(serve):
    """Unless it waits for something: a call, or a watch."""
    rpc, server = serve(idle_s=0.1, interval_s=0.02)
    async with server as port:
        async with connect(f"ws://127.0.0.1:{port}/rpc") as socket:
            _, (_, reason) = await said(socket)
            assert "no message came" in reason
        async with connect(f"ws://127.0.0.1:{port}/rpc") as socket:
            await socket.send('["push",["pipeline",0,["track"],["x"]]]')
            await socket.send('["push",["pipeline",0,["counters","watch"],["x*",["export",-1]]]]')
            assert json.loads(await socket.recv())[0] == "push"
            kinds = []
            with suppress(TimeoutError):  # it has not answered its callback, and is not called again
                async with asyncio.timeout(0.4):
                    while True:
                        kinds.append(json.loads(await socket.recv())[0])
            assert "abort" not in kinds
            assert kinds.count("push") <= 1
        await until(lambda: not rpc.peers)
        assert len(rpc.watches) == 0


async def test_sessions_have_a_number(serve):
    """A session above the limit is 503."""
    _, server = serve(most=1)
    async with server as port, connect(f"ws://127.0.0.1:{port}/rpc"):
        with pytest.raises(InvalidStatus, match="503"):
            await connect(f"ws://127.0.0.1:{port}/rpc")


async def test_a_message_that_is_none_ends_the_session(serve):
    """Binary frames and broken JSON too: the client gets the reason, and Cap'n Web's code."""
    _, server = serve()
    async with server as port:
        for message in (b"\x00", "{", '["push",[1,2]]'):
            async with connect(f"ws://127.0.0.1:{port}/rpc") as socket:
                await socket.send(message)
                messages, (code, _) = await said(socket)
                assert (messages[0][0], code) == ("abort", 3000)


async def test_a_client_that_does_not_read_is_closed(serve, objects):
    """It asks for megabytes and reads none: what waits for it is bounded, and it goes after `send_s`."""
    rpc, server = serve(send_s=0.5)
    stub = objects.get("default")
    for number in range(200):
        stub.counters.incr(f"{'k' * 1000}{number}")
    await stub.track("x")
    async with server as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        for number in range(1, 300):
            writer.write(frame('["push",["pipeline",0,["counters","keys"],["k*"]]]'))
            writer.write(frame(f'["pull",{number}]'))
        await until(lambda: rpc.peers)
        peer = next(iter(rpc.peers))
        await until(lambda: not rpc.peers)
        assert peer.sent < 20 << 20
        assert "too slowly" in str(peer.closed)
        writer.transport.abort()


async def test_a_client_that_vanishes_leaves_nothing(serve, objects):
    """The server runs its calls and forgets its callbacks."""
    rpc, server = serve(interval_s=0.02)
    async with server as port:
        socket = await connect(f"ws://127.0.0.1:{port}/rpc")
        await socket.send('["push",["pipeline",0,["track"],["x"]]]')
        await socket.send('["push",["pipeline",0,["live"],[["export",-1]]]]')
        assert json.loads(await socket.recv())[0] == "push"
        socket.transport.abort()
        await until(lambda: not rpc.peers)
        assert len(rpc.watches) == 0
        await objects.get("default").flush()
        assert (await objects.get("default").stats()).next_seq == 1


async def test_thousands_share_one_look(serve, objects):
    """A hundred callbacks of ten connections on two globs: two looks an interval, and each is called."""
    rpc, server = serve(interval_s=0.02)
    async with server as port:
        await objects.get("default").track("x")
        sockets = [await connect(f"ws://127.0.0.1:{port}/rpc") for _ in range(10)]
        for socket in sockets:
            for number in range(1, 11):
                await socket.send(
                    f'["push",["pipeline",0,["counters","watch"],["{"ab"[number % 2]}*",["export",-{number}]]]]'
                )
        for socket in sockets:
            calls = [json.loads(await socket.recv()) for _ in range(20)]
            assert [call[0] for call in calls].count("push") == 10
        assert (len(rpc.watches), rpc.watches.looks) == (100, 2)
        for socket in sockets:
            await socket.close()
        await until(lambda: rpc.watches.looks == 0)


async def test_the_server_says_goodbye(serve):
    """When it stops, sessions end with a reason, and callbacks end."""
    rpc, server = serve()
    async with server as port:
        socket = await connect(f"ws://127.0.0.1:{port}/rpc")
        await socket.send('["push",1]')
        await until(lambda: rpc.peers)
        await rpc.close()
        messages, (code, reason) = await said(socket)
        assert (messages[0][0], code) == ("abort", 3000)
        assert "going away" in reason


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
