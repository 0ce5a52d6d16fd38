"""RPC: Cap'n Web over an HTTP batch or a WebSocket. What can be called is listed in `surface.py`.

Who calls is said by the headers of the request, as for every route; or, since a browser's WebSocket has none, by
`authenticate(key)` as a call, which costs no round trip of its own. A key never stands in a URL.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from lakebed.api.auth import Auth
from lakebed.api.body import Body
from lakebed.api.errors import Refusal, error_response, error_summary
from lakebed.api.openapi.operation import operation
from lakebed.api.rpc.methods import RpcMethods
from lakebed.api.rpc.watches import Watches
from lakebed.errors import AccessDenied, LakebedError, Unreachable
from lakebed.objects.remote_transports import FAITHFUL
from lakebed.rpc.calls import Call, Outcome
from lakebed.rpc.capnweb.errors import Fault, ProtocolError, tell
from lakebed.rpc.capnweb.limits import Limits
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.dispatch import begin, finish
from lakebed.rpc.session import Session
from lakebed.rpc.stub import Stub

__all__ = ["RpcEndpoint"]

_log = logging.getLogger("lakebed.api")
_TEXT = "text/plain"
_INTERNAL = 500
_HIGH = 1 << 20  # characters that wait for a client that reads slowly, before its answers wait instead
_ABORTED = 3000  # as Cap'n Web closes a WebSocket after an abort
_DRAIN_S = 5.0
_AT_ONCE = 50  # messages of one session, before others have their turn
_REASON_BYTES = 120
_TYPES = {401: "AccessDenied", 403: "AccessDenied", 404: "NotReachable", 429: "Backpressure"}


class RpcEndpoint:
    """`POST /rpc` and the WebSocket at `/rpc`.

    Args:
        gate: before every call.
        body: reads batches.
        limits: of one session.
        interval_s: between two calls of one callback.
        batch_s: seconds for a batch, in which its calls must be over.
        idle_s: seconds without a message after which a WebSocket that waits for nothing is closed.
        login_s: seconds in which a WebSocket must show a key that is known.
        send_s: seconds in which a client must have read a message.
        most: sessions at once; a further WebSocket is 503.
    """

    def __init__(
        self,
        gate: Auth,
        body: Body,
        *,
        limits: Limits | None = None,
        interval_s: float = 1.0,
        batch_s: float = 60.0,
        idle_s: float = 300.0,
        login_s: float = 10.0,
        send_s: float = 30.0,
        most: int = 1000,
    ) -> None:
        self._gate = gate
        self._body = body
        self._limits = limits or Limits()
        self._batch_s = batch_s
        self._idle_s = idle_s
        self._login_s = login_s
        self._send_s = send_s
        self._most = most
        self.watches = Watches(interval_s)
        self.peers: dict[Peer, RpcMethods] = {}  # sessions that are open
        self._sockets: set[asyncio.Task[Any]] = set()  # those that carry a WebSocket
        self._direct: Stub | None = None
        self._busy: set[Session] = set()

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [Route("/rpc", self.batch, methods=["POST"]), WebSocketRoute("/rpc", self.socket)]

    async def close(self) -> None:
        """End the sessions, after the calls that are under way or a few seconds, and all watches."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*(peer.settle() for peer in self.peers))
        for peer in list(self.peers):
            peer.abort(Unreachable("the server is going away", hint="Connect again"))
        if self._sockets:  # each says goodbye
            await asyncio.wait(self._sockets, timeout=_DRAIN_S)
        await self.watches.close()

    @operation(body={_TEXT: str}, body_required=False, answer={_TEXT: str})
    async def batch(self, request: Request) -> Response:
        """A Cap'n Web batch: a message a line, answered likewise.

        The answer is 200 also where a message breaks the protocol: it then ends with an `abort` that says why.
        """
        try:
            lines = (await self._body.read(request)).decode().split("\n")
        except UnicodeDecodeError:
            lines = ["not UTF-8"]  # answered as any message that is not JSON
        answers: list[str] = []

        def collect(text: str) -> bool:
            answers.append(text)
            return True

        peer = self._peer(request, collect, answers=False)
        try:
            async with asyncio.timeout(self._batch_s):
                await self._take(peer, [line for line in lines if line.strip()])
        except TimeoutError:
            peer.abort(ProtocolError(f"the batch took longer than {self._batch_s:g} seconds"))
        finally:
            peer.close(Unreachable("the batch is over"))
            await peer.settle()
            self.peers.pop(peer, None)
        return Response("\n".join(answers), media_type=_TEXT)

    async def _take(self, peer: Peer, lines: Sequence[str]) -> None:
        if len(lines) > self._limits.batch_messages:
            peer.abort(ProtocolError(f"a batch has more than {self._limits.batch_messages} messages: send several"))
        for number, line in enumerate(lines):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            await peer.room()
            peer.receive(line)
        await peer.finish()

    async def socket(self, socket: WebSocket) -> None:
        """A Cap'n Web session: a message a text frame, both ways."""
        refused = self._refusal(socket)
        if refused is not None:
            await socket.send_denial_response(refused)
            return
        await socket.accept()
        link = _Link(socket, self._send_s)
        peer = self._peer(socket, link.send, ended=link.end)
        link.peer = peer
        carrying = asyncio.current_task()
        assert carrying is not None  # noqa: S101 - a coroutine runs in a task
        self._sockets.add(carrying)
        login = asyncio.get_running_loop().call_later(self._login_s, self._expect_key, peer)
        try:
            await link.run(self._idle_s)
        finally:
            login.cancel()
            self._sockets.discard(carrying)
            peer.close(Unreachable("the connection is closed"))
            await peer.settle()
            self.peers.pop(peer, None)

    def _refusal(self, socket: WebSocket) -> Response | None:
        """Why no session is opened, if none is."""
        try:
            if self._gate.keyless and not _may_connect(socket):
                return error_response(403, "FOREIGN_ORIGIN", "A server without keys takes no pages of other sites")
        except LakebedError as error:
            told = error_summary(error)
            return error_response(told.status, told.code, told.message)
        if len(self.peers) >= self._most:
            return error_response(503, "NO_ROOM", f"{self._most} sessions are open", None, {"Retry-After": "5"})
        return None

    def _expect_key(self, peer: Peer) -> None:
        if not self.peers[peer].known:
            peer.abort(
                AccessDenied(f"no key was shown within {self._login_s:g} seconds", hint="Call authenticate(key)")
            )

    def _peer(
        self,
        connection: HTTPConnection,
        send: Callable[[str], bool],
        *,
        answers: bool = True,
        ended: Callable[[], None] | None = None,
    ) -> Peer:
        wrong = 0

        def mistaken() -> None:
            nonlocal wrong
            wrong += 1
            if wrong >= self._limits.mistakes:
                peer.abort(AccessDenied("too many wrong keys"))

        surface = RpcMethods(self._gate, connection, self.watches, self._stub_of, mistaken)
        peer = Peer(
            send,
            surface.main,
            limits=self._limits,
            faithful=FAITHFUL in connection.headers,
            tell=_tell,
            answers=answers,
            ended=ended,
        )
        self.peers[peer] = surface
        return peer

    def _stub_of(self, found: Any) -> Any:
        """A stub of the one object that is served, so that calls on it begin as on those of a namespace."""
        if isinstance(found, Stub):
            return found
        if self._direct is None:
            self._direct = Stub(Session(_Direct(found), _unheard, self._busy, repr(found), ()))
        return self._direct


class _Direct:
    """The transport to an object that is open here."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._turn = asyncio.Lock()

    async def send(self, batch: Sequence[Call], settle: Callable[[int, Outcome], None]) -> None:
        """As `Transport.send`."""
        async with self._turn:
            begun = await begin(self._target, batch)
        await finish(begun, settle)


class _Link:
    """Carries a session's messages over a WebSocket: one task reads, one writes."""

    def __init__(self, socket: WebSocket, send_s: float) -> None:
        self.peer: Peer
        self._socket = socket
        self._send_s = send_s
        self._texts: deque[str] = deque()
        self._waiting = 0  # characters
        self._changed = asyncio.Event()
        self._connected = True

    def send(self, text: str) -> bool:
        """Have `text` sent; whether there is room for more."""
        self._texts.append(text)
        self._waiting += len(text)
        self._changed.set()
        return self._waiting < _HIGH

    def end(self) -> None:
        """The session is over: what waits is sent, then the connection is closed."""
        self._changed.set()

    async def run(self, idle_s: float) -> None:
        """Carry messages until the session or the connection ends."""
        reading = asyncio.create_task(self._read(idle_s))
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        if self._connected:
            reason = str(self.peer.closed).encode()[:_REASON_BYTES].decode(errors="ignore")
            await self._socket.close(_ABORTED, reason)

    async def _read(self, idle_s: float) -> None:
        taken = 0
        try:
            while self.peer.closed is None:
                taken += 1
                if taken % _AT_ONCE == 0:  # a message that is there already is read without a pause
                    await asyncio.sleep(0)
                await self.peer.room()
                try:
                    async with asyncio.timeout(idle_s):
                        message = await self._socket.receive()
                except TimeoutError:
                    if self.peer.idle:
                        self.peer.abort(Unreachable(f"nothing was said for {idle_s:g} seconds", hint="Connect again"))
                    continue
                if message["type"] == "websocket.disconnect":
                    self._connected = False
                    self.peer.close(Unreachable("the client is gone"))
                else:
                    self.peer.receive(message.get("text") or "")
        except Exception as error:  # noqa: BLE001 - the connection broke, in whichever way
            self._connected = False
            self.peer.close(error)

    async def _write(self) -> None:
        while self._texts or self.peer.closed is None:
            if not self._texts:
                self._changed.clear()
                await self._changed.wait()
                continue
            if not self._connected:
                return
            text = self._texts.popleft()
            try:
                async with asyncio.timeout(self._send_s):
                    await self._socket.send_text(text)
            except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as error:
                self._connected = False  # saying goodbye would wait for the client too
                self.peer.close(Unreachable(f"the client reads too slowly, or is gone: {type(error).__name__}"))
                return
            self._waiting -= len(text)
            if self._waiting < _HIGH // 2:
                self.peer.drained()


def _tell(error: BaseException) -> Fault:
    """What a client is told: the same as over HTTP, with the class beside it."""
    if isinstance(error, Refusal):
        facts = {name: fact for name, fact in error.details.items() if isinstance(fact, (str, int, float))}
        kind = _TYPES.get(error.status, "LakebedError")
        if error.headers is not None and "Retry-After" in error.headers:
            facts["retry_after"] = error.headers["Retry-After"]
        return Fault("Error", error.message, facts | {"type": kind, "code": error.code, "status": error.status})
    fault = tell(error)
    if isinstance(error, ProtocolError) or fault.properties["type"] in _PLAIN:
        return Fault(fault.name, fault.message, fault.properties | {"code": "INVALID_CALL", "status": 400})
    told = error_summary(error)
    if told.status >= _INTERNAL:
        _log.error("a call failed: %s", error, exc_info=error)
    later = {} if told.retry_after is None else {"retry_after": told.retry_after}
    facts = {"type": fault.properties["type"], "code": told.code, "status": told.status} | later
    hint = {"hint": fault.properties["hint"]} if "hint" in fault.properties and told.message == fault.message else {}
    return Fault(fault.name, told.message, told.facts | facts | hint)


_PLAIN = frozenset({"TypeError", "ValueError", "KeyError", "IndexError", "OverflowError"})


def _may_connect(socket: WebSocket) -> bool:
    """Whether the page that a browser connects from may: none, or one of this very host.

    Browsers do not hold a WebSocket to the same origin, so without keys any site's page could use a server of the
    machine that it is shown on. With keys a page must have one. Programs send no Origin.
    """
    origin = socket.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:
        return False


def _unheard(error: BaseException) -> None:
    _log.info("a call that was not awaited failed: %r", error)
