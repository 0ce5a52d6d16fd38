"""RPC: Cap'n Web over an HTTP batch or a WebSocket. `methods.py` lists what can be called.

The key is in a header of the request, as for every route. A browser's WebSocket cannot have the header: its client
calls `authenticate(key)`, which costs no round trip of its own. A key is never in a URL.
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
from lakebed.api.openapi.document import operation
from lakebed.api.rpc.methods import RpcMethods
from lakebed.api.rpc.watches import Watches
from lakebed.errors import AccessDenied, LakebedError, Unreachable
from lakebed.objects.pool import ObjectHandle
from lakebed.objects.remote_transports import FAITHFUL
from lakebed.rpc.capnweb.codec import Limits
from lakebed.rpc.capnweb.errors import CALLER_ERRORS, Fault, ProtocolError
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.codec import LakebedCodec

__all__ = ["RpcEndpoint"]

_log = logging.getLogger("lakebed.api")
_TEXT = "text/plain"
_INTERNAL = 500
_MAX_UNSENT = 1 << 20  # characters that are queued for a slow client; when they are reached, its answers wait
_ABORTED = 3000  # the code with which Cap'n Web closes a WebSocket after an abort
_DRAIN_S = 5.0
_MESSAGES_A_TURN = 50  # messages of one session that are read before other sessions get a turn
_MAX_REASON_BYTES = 120
_TYPES = {401: "AccessDenied", 403: "AccessDenied", 404: "NotReachable", 429: "Backpressure"}


class RpcEndpoint:
    """`POST /rpc` and the WebSocket at `/rpc`.

    Args:
        auth: checks the key before every call.
        body: reads the bodies of batches.
        limits: the limits of one session.
        interval_s: seconds between two calls of a callback that watches something.
        batch_s: seconds within which all calls of an HTTP batch must finish.
        idle_s: seconds without a message after which a WebSocket without calls and watches is closed.
        login_s: seconds after connecting within which a WebSocket must show a valid key.
        send_s: seconds that sending one message may take; then the connection of a slow client is closed.
        most: maximum number of open sessions; a further WebSocket is refused with 503.
    """

    def __init__(
        self,
        auth: Auth,
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
        self._auth = auth
        self._body = body
        self._limits = limits or Limits()
        self._batch_s = batch_s
        self._idle_s = idle_s
        self._login_s = login_s
        self._send_s = send_s
        self._most = most
        self.watches = Watches(interval_s)
        self.peers: dict[Peer, RpcMethods] = {}  # open sessions
        self._sockets: set[asyncio.Task[Any]] = set()  # tasks that serve a WebSocket
        self._calls: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/rpc", self.batch, methods=["POST"]), WebSocketRoute("/rpc", self.socket)]

    async def close(self) -> None:
        """End all sessions and watches. Calls under way get a few seconds to finish."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await asyncio.gather(*(peer.settle() for peer in self.peers))
        for peer in list(self.peers):
            peer.abort(Unreachable("the server is going away", hint="Connect again"))
        if self._sockets:  # each task sends the abort of its session
            await asyncio.wait(self._sockets, timeout=_DRAIN_S)
        await self.watches.close()

    @operation(body={_TEXT: str}, body_required=False, answer={_TEXT: str})
    async def batch(self, request: Request) -> Response:
        """A Cap'n Web batch: body and answer have one message per line.

        The status is 200 also if a message breaks the protocol: the answer then ends with an `abort` and the reason.
        """
        try:
            lines = (await self._body.read(request)).decode().split("\n")
        except UnicodeDecodeError:
            lines = ["not UTF-8"]  # refused as any message that is not JSON
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
            peer.close(Unreachable("the batch has ended"))
            await peer.settle()
            self.peers.pop(peer, None)
        return Response("\n".join(answers), media_type=_TEXT)

    async def _take(self, peer: Peer, lines: Sequence[str]) -> None:
        if len(lines) > self._limits.batch_messages:
            peer.abort(ProtocolError(f"a batch has more than {self._limits.batch_messages} messages: send several"))
        for number, line in enumerate(lines):
            if number % _MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)
            await peer.ready()
            peer.receive(line)
        await peer.finish()

    async def socket(self, socket: WebSocket) -> None:
        """A Cap'n Web session over a WebSocket: one message per text frame, in both directions."""
        refused = self._refusal(socket)
        if refused is not None:
            await socket.send_denial_response(refused)
            return
        await socket.accept()
        link = _Link(socket, self._send_s)
        peer = self._peer(socket, link.send, ended=link.end)
        link.peer = peer
        serving = asyncio.current_task()
        assert serving is not None  # noqa: S101 - a coroutine runs in a task
        self._sockets.add(serving)
        login = asyncio.get_running_loop().call_later(self._login_s, self._expect_key, peer)
        try:
            await link.run(self._idle_s)
        finally:
            login.cancel()
            self._sockets.discard(serving)
            peer.close(Unreachable("the connection is closed"))
            await peer.settle()
            self.peers.pop(peer, None)

    def _refusal(self, socket: WebSocket) -> Response | None:
        """The response that refuses the connection; None if the connection is accepted."""
        try:
            if self._auth.keyless and not _may_connect(socket):
                return error_response(403, "FOREIGN_ORIGIN", "A server without keys accepts pages of its own host only")
        except LakebedError as error:
            answer = error_summary(error)
            return error_response(answer.status, answer.code, answer.message)
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

        methods = RpcMethods(self._auth, connection, self.watches, self._handle_of, mistaken)
        peer = Peer(
            send,
            methods.main,
            codec=_CODEC,
            limits=self._limits,
            faithful=FAITHFUL in connection.headers,
            answers=answers,
            ended=ended,
        )
        self.peers[peer] = methods
        return peer

    def _handle_of(self, served: Any) -> ObjectHandle:
        """Wrap the one served object in a handle, so that calls on it begin as calls on a namespace's objects do."""
        if isinstance(served, ObjectHandle):
            return served

        async def enter() -> tuple[Any, Callable[[], None]]:
            return served, lambda: None

        return ObjectHandle(enter, self._calls, _log_unhandled)


class _Link:
    """The WebSocket of a session: one task reads from it, another writes to it."""

    def __init__(self, socket: WebSocket, send_s: float) -> None:
        self.peer: Peer
        self._socket = socket
        self._send_s = send_s
        self._texts: deque[str] = deque()
        self._unsent = 0  # characters
        self._changed = asyncio.Event()
        self._connected = True

    def send(self, text: str) -> bool:
        """Queue `text`. Returns False if the session should send no more until its `drained` is called."""
        self._texts.append(text)
        self._unsent += len(text)
        self._changed.set()
        return self._unsent < _MAX_UNSENT

    def end(self) -> None:
        """Send the queued messages, then close the connection."""
        self._changed.set()

    async def run(self, idle_s: float) -> None:
        """Send and receive messages until the session or the connection ends."""
        reading = asyncio.create_task(self._read(idle_s))
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        if self._connected:
            reason = str(self.peer.closed).encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
            await self._socket.close(_ABORTED, reason)

    async def _read(self, idle_s: float) -> None:
        received = 0
        try:
            while self.peer.closed is None:
                received += 1
                if received % _MESSAGES_A_TURN == 0:  # `receive` does not pause if a message is there already
                    await asyncio.sleep(0)
                await self.peer.ready()
                try:
                    async with asyncio.timeout(idle_s):
                        message = await self._socket.receive()
                except TimeoutError:
                    if self.peer.idle:
                        self.peer.abort(Unreachable(f"no message came for {idle_s:g} seconds", hint="Connect again"))
                    continue
                if message["type"] == "websocket.disconnect":
                    self._connected = False
                    self.peer.close(Unreachable("the client is gone"))
                else:
                    self.peer.receive(message.get("text") or "")
        except Exception as error:  # noqa: BLE001 - the connection broke
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
                self._connected = False  # a proper close would wait for the client too
                self.peer.close(Unreachable(f"the client reads too slowly, or is gone: {type(error).__name__}"))
                return
            self._unsent -= len(text)
            if self._unsent < _MAX_UNSENT // 2:
                self.peer.drained()


class _ServerCodec(LakebedCodec):
    """Encodes errors as HTTP does, with the name of the Python class beside the code."""

    def fault(self, error: BaseException) -> Fault:
        """Encode `error` as `Codec.fault` does, with HTTP's code and status."""
        if isinstance(error, Refusal):
            facts = {name: fact for name, fact in error.details.items() if isinstance(fact, (str, int, float))}
            kind = _TYPES.get(error.status, "LakebedError")
            if error.headers is not None and "Retry-After" in error.headers:
                facts["retry_after"] = error.headers["Retry-After"]
            return Fault("Error", error.message, facts | {"type": kind, "code": error.code, "status": error.status})
        fault = super().fault(error)
        properties = fault.properties
        if isinstance(error, ProtocolError) or properties["type"] in CALLER_ERRORS:
            return Fault(fault.name, fault.message, properties | {"code": "INVALID_CALL", "status": 400})
        answer = error_summary(error)
        if answer.status >= _INTERNAL:
            _log.error("a call failed: %s", error, exc_info=error)
        facts = {"type": properties["type"], "code": answer.code, "status": answer.status}
        if answer.retry_after is not None:
            facts["retry_after"] = answer.retry_after
        if "hint" in properties and answer.message == fault.message:
            facts["hint"] = properties["hint"]
        return Fault(fault.name, answer.message, answer.facts | facts)


_CODEC = _ServerCodec()


def _may_connect(socket: WebSocket) -> bool:
    """Whether the Origin of the connection, if it has one, is this host.

    Browsers do not bind a WebSocket to the same origin, so without keys a page of any site could use a server on the
    machine of its reader. With keys, a page needs a key. Programs send no Origin.
    """
    origin = socket.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:
        return False


def _log_unhandled(error: BaseException) -> None:
    _log.info("a call that was not awaited failed: %r", error)
