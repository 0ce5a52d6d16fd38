"""Exchanges: the middleware around every route. It counts, refuses what is too much, and tells who watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakebed.api.cors import Cors
from lakebed.api.errors import Refusal, error_handlers, error_response
from lakebed.clock import Clock

__all__ = ["Exchange", "Exchanges", "Held", "Watcher", "header"]

_log = logging.getLogger("lakebed.api")
_ALWAYS = "/health"  # is answered also when nothing else is
_SCOPE_KEY = "lakebed.exchange"
_SMALL_BYTES = 64 << 10
_LINGER_BYTES = 32 << 20
_LINGER_S = 5.0
_TOO_SLOW = 408

# For answers that nobody should run or frame. A page brings its own.
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
]
_CLOSE = (b"connection", b"close")


class Held:
    """Bytes of bodies that wait for their answer, over all requests of an app."""

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0


class Exchange:
    """What passes between the server and the app for one request.

    A body that nobody read is read away before the connection ends, within 32 MiB and 5 seconds: a connection that is
    closed while bytes lie unread is reset, and a client that is still sending then never sees the answer. Beyond that
    it is closed all the same.

    Args:
        held: is added to as the body arrives, and given back when the answer begins.
        headers: further ones of the answer.

    Attributes:
        status: of the answer, 0 before it begins.
        sent_bytes: of the answer's body.
        received_bytes: of the request's body.
    """

    __slots__ = (
        "_asked",
        "_headers",
        "_held",
        "_holding",
        "_receive",
        "_send",
        "_unread",
        "received_bytes",
        "scope",
        "sent_bytes",
        "status",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, held: Held, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.scope = scope
        self.status = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self._asked = False  # for the body
        self._receive = receive
        self._send = send
        self._held = held
        self._holding = 0
        self._headers = headers
        self._unread = _has_body(scope)
        scope[_SCOPE_KEY] = self

    @staticmethod
    def of(scope: Scope) -> Exchange | None:
        """The exchange that a request belongs to."""
        found: Exchange | None = scope.get(_SCOPE_KEY)
        return found

    async def receive(self) -> Message:
        """The app's `receive`. Raises Refusal, 503, where all bodies together are more than may be held."""
        self._asked = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._unread = message.get("more_body", False)
            size = len(message.get("body", b""))
            self.received_bytes += size
            self.hold(size)
        else:
            self._unread = False
        return message

    def hold(self, size: int) -> None:
        """Count `size` bytes that are kept in memory until the answer begins. Raises Refusal as `receive` does."""
        self._holding += size
        self._held.bytes += size
        if self._held.bytes > self._held.limit:
            message = "Too many large requests wait for their answer"
            raise Refusal(503, "OVERLOADED", message, headers={"Retry-After": "1"})

    def release(self) -> None:
        """Nothing is held any more."""
        self._held.bytes -= self._holding
        self._holding = 0

    async def send(self, message: Message) -> None:
        """The app's `send`."""
        if message["type"] == "http.response.start":
            self.release()
            self.status = message["status"]
            given = message.get("headers", ())
            names = {name for name, _ in given}
            headers = [*given, *(header for header in _SAFE if header[0] not in names), *self._headers]
            if self._unread and not await self._emptied():
                headers = [*(header for header in headers if header[0] != b"connection"), _CLOSE]
            await self._send({**message, "headers": headers})
        elif message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._send_body(message)

    async def _send_body(self, message: Message) -> None:
        self.sent_bytes += len(message.get("body", b""))
        if self._unread and not message.get("more_body", False):
            # The client can read all of the answer now, but the connection does not end yet.
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    await self._read_away(_LINGER_BYTES)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _emptied(self) -> bool:
        """Whether what was left of the body is gone, so that the connection can be used again."""
        if self.status == _TOO_SLOW:
            self._unread = False  # it had its time
            return False
        headers = Headers(scope=self.scope)
        if not self._asked and headers.get("expect", "").lower() == "100-continue":
            self._unread = False  # the client waits for a word, and this answer is another one
            return False
        length = headers.get("content-length", "")
        if not length.isdecimal() or len(length) > len(str(_SMALL_BYTES)) or int(length) > _SMALL_BYTES:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._read_away(_SMALL_BYTES)
        return not self._unread

    async def _read_away(self, limit: int) -> None:
        size = 0
        while self._unread and size <= limit:
            message = await self._receive()
            self._unread = message["type"] == "http.request" and message.get("more_body", False)
            size += len(message.get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return any((name == b"content-length" and value != b"0") or name == b"transfer-encoding" for name, value in headers)


def header(scope: Scope, name: bytes) -> str:
    """The first header `name`, in lower case, of a request; empty if there is none.

    For what each request is asked: `Headers.get` takes five times as long, and is asked half a dozen times.
    """
    for found, value in scope["headers"]:
        if found == name:
            text: str = value.decode("latin-1")
            return text
    return ""


Watcher = Callable[[Exchange, float], None]


class Exchanges:
    """An ASGI middleware, inside the app so that it also holds where the app is mounted in another.

    A request for a route whose path has no placeholder goes to it straight. Starlette's way there (its middleware for
    exceptions, one route tried after the other, a wrapper for each) took 60 of the 250 µs of `POST /v1/track`; what it
    does for errors is done here for all of them.

    Args:
        app: what answers all else.
        cors: what browsers are told.
        clock: measures.
        max_waiting: requests whose answer has not begun; one more is 503. A stream that has begun does not count.
        max_held_bytes: of the bodies of those; one that goes beyond it is 503.
        watchers: called after each exchange with it and its seconds. They must not raise.
        routes: the app's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        cors: Cors,
        clock: Clock,
        max_waiting: int,
        max_held_bytes: int,
        watchers: Sequence[Watcher] = (),
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._app = app
        self._straight = {
            (method, route.path): route
            for route in routes
            if isinstance(route, Route) and not route.param_convertors and iscoroutinefunction(route.endpoint)
            for method in route.methods or ()
        }
        self._cors = cors
        self._clock = clock
        self._max_waiting = max_waiting
        self._held = Held(max_held_bytes)
        self._watchers = tuple(watchers)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._clock.monotonic()
        exchange = Exchange(scope, receive, send, self._held, self._cors.headers(scope))
        self._waiting += 1
        waits = True

        async def send_counted(message: Message) -> None:
            nonlocal waits
            if waits:
                waits = False
                self._waiting -= 1
            await exchange.send(message)

        try:
            await self._answer(scope, exchange, send_counted)
        finally:
            if waits:
                self._waiting -= 1
            exchange.release()
            seconds = self._clock.monotonic() - began
            for watcher in self._watchers:
                watcher(exchange, seconds)

    async def _answer(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        if self._waiting > self._max_waiting and not scope["path"].startswith(scope.get("root_path", "") + _ALWAYS):
            message = "Too many requests wait for their answer"
            refusal = error_response(503, "OVERLOADED", message, {"limit": self._max_waiting}, {"Retry-After": "1"})
            await refusal(scope, exchange.receive, send)
            return
        preflight = self._cors.preflight(scope)
        if preflight is not None:
            await preflight(scope, exchange.receive, send)
            return
        route = None if scope.get("root_path") else self._straight.get((scope["method"], scope["path"]))
        try:
            if route is None:
                await self._app(scope, exchange.receive, send)
            else:
                scope["route"] = route  # as the router says it
                response = await route.endpoint(Request(scope, exchange.receive, send))
                await response(scope, exchange.receive, send)
        except Exception as error:
            if exchange.status:  # the answer has begun and cannot be taken back: the server closes the connection
                path = getattr(scope.get("route"), "path", "a path without a route")  # the path may have a key in it
                _log.exception("%s %s failed in the middle of its answer", scope["method"], path)
                raise
            handler = next(error_handlers[kind] for kind in type(error).__mro__ if kind in error_handlers)
            await handler(Request(scope), error)(scope, exchange.receive, send)
