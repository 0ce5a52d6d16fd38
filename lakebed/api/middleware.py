"""ExchangeMiddleware: counts the requests of all routes, refuses those beyond its limits, and calls the watchers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from inspect import iscoroutinefunction
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakebed.api.cors import Cors
from lakebed.api.errors import Refusal, error_handlers, error_response
from lakebed.clock import Clock
from lakebed.histogram import SECONDS, Histogram

__all__ = ["Exchange", "ExchangeMiddleware", "HeldBytes", "RequestMetrics", "Watcher", "header", "log_exchange"]

_log = logging.getLogger("lakebed.api")
_ALWAYS = "/health"  # the routes that answer even when all others refuse
_SCOPE_KEY = "lakebed.exchange"
_SMALL_BYTES = 64 << 10
_LINGER_BYTES = 32 << 20
_LINGER_S = 5.0
_TOO_SLOW = 408

# Headers of responses that no browser should execute or frame. A page sends its own headers.
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
]
_CLOSE = (b"connection", b"close")


class HeldBytes:
    """Bytes of bodies that wait for their response, over all requests of an app."""

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0


class Exchange:
    """One request and its response, between the server and the app.

    An unread request body is drained before the connection closes, within 32 MiB and 5 seconds: closing a connection
    with unread bytes resets it, and a client that is still sending then never sees the response. Beyond these limits
    the connection is closed nevertheless.

    Args:
        held: counts the bytes of the body as they arrive, until the response begins.
        headers: additional headers of the response.

    Attributes:
        status: status of the response, 0 before it begins.
        sent_bytes: bytes sent of the response's body.
        received_bytes: bytes received of the request's body.
    """

    __slots__ = (
        "_body_requested",
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
        self, scope: Scope, receive: Receive, send: Send, held: HeldBytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.scope = scope
        self.status = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self._body_requested = False
        self._receive = receive
        self._send = send
        self._held = held
        self._holding = 0
        self._headers = headers
        self._unread = _has_body(scope)
        scope[_SCOPE_KEY] = self

    @staticmethod
    def of(scope: Scope) -> Exchange | None:
        """The exchange of the request with this `scope`; None if there is none."""
        exchange: Exchange | None = scope.get(_SCOPE_KEY)
        return exchange

    async def receive(self) -> Message:
        """The `receive` that the app calls. Raises Refusal, 503, if all bodies together exceed the limit."""
        self._body_requested = True
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
        """Count `size` bytes that stay in memory until the response begins. Raises Refusal as `receive` does."""
        self._holding += size
        self._held.bytes += size
        if self._held.bytes > self._held.limit:
            message = "Too many large requests wait for their response: retry in a second"
            raise Refusal(503, "OVERLOADED", message, headers={"Retry-After": "1"})

    def release(self) -> None:
        """Stop counting the bytes of this request."""
        self._held.bytes -= self._holding
        self._holding = 0

    async def send(self, message: Message) -> None:
        """The `send` that the app calls."""
        if message["type"] == "http.response.start":
            self.release()
            self.status = message["status"]
            own_headers = message.get("headers", ())
            names = {name for name, _ in own_headers}
            headers = [*own_headers, *(header for header in _SAFE if header[0] not in names), *self._headers]
            if self._unread and not await self._drained():
                headers = [*(header for header in headers if header[0] != b"connection"), _CLOSE]
            await self._send({**message, "headers": headers})
        elif message["type"] != "http.response.body":
            await self._send(message)
        else:
            await self._send_body(message)

    async def _send_body(self, message: Message) -> None:
        self.sent_bytes += len(message.get("body", b""))
        if self._unread and not message.get("more_body", False):
            # The client can read the whole response now, but the connection stays open.
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    await self._drain(_LINGER_BYTES)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _drained(self) -> bool:
        """Whether the rest of the body was read, so that the connection can be used again."""
        if self.status == _TOO_SLOW:
            self._unread = False  # the time for the body is over
            return False
        headers = Headers(scope=self.scope)
        if not self._body_requested and headers.get("expect", "").lower() == "100-continue":
            self._unread = False  # the client waits for 100 before it sends the body, and the response is another one
            return False
        length = headers.get("content-length", "")
        if not length.isdecimal() or len(length) > len(str(_SMALL_BYTES)) or int(length) > _SMALL_BYTES:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._drain(_SMALL_BYTES)
        return not self._unread

    async def _drain(self, limit: int) -> None:
        size = 0
        while self._unread and size <= limit:
            message = await self._receive()
            self._unread = message["type"] == "http.request" and message.get("more_body", False)
            size += len(message.get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return any((name == b"content-length" and value != b"0") or name == b"transfer-encoding" for name, value in headers)


def header(scope: Scope, name: bytes) -> str:
    """The first header called `name` (in lower case); empty if there is none.

    Made for the half a dozen headers that are checked in every request: `Headers.get` takes five times as long.
    """
    for other, value in scope["headers"]:
        if other == name:
            text: str = value.decode("latin-1")
            return text
    return ""


Watcher = Callable[[Exchange, float], None]


class ExchangeMiddleware:
    """An ASGI middleware, inside the app so that it also works if the app is mounted in another one.

    A request for a route without a placeholder in its path goes straight to the route. Starlette's own handling (its
    middleware for exceptions, one route tried after the other, a wrapper for each) took 60 of the 250 µs of
    `POST /v1/track`; errors are handled here for all routes.

    Args:
        app: answers all other requests.
        cors: gives the CORS headers.
        clock: measures the seconds of each exchange.
        max_waiting: requests whose response has not begun; one more gets 503. A stream that has begun does not count.
        max_held_bytes: bytes of the bodies of these requests together; a request beyond them gets 503.
        watchers: called after each exchange with it and its seconds. They must not raise.
        routes: the routes of the app.
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
        self._direct_routes = {
            (method, route.path): route
            for route in routes
            if isinstance(route, Route) and not route.param_convertors and iscoroutinefunction(route.endpoint)
            for method in route.methods or ()
        }
        self._cors = cors
        self._clock = clock
        self._max_waiting = max_waiting
        self._held = HeldBytes(max_held_bytes)
        self._watchers = tuple(watchers)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._clock.monotonic()
        is_cross_origin = any(name == b"origin" for name, _ in scope["headers"])
        cors_headers = self._cors.headers(scope) if is_cross_origin else []
        exchange = Exchange(scope, receive, send, self._held, cors_headers)
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
            message = "Too many requests wait for their response"
            refusal = error_response(503, "OVERLOADED", message, {"limit": self._max_waiting}, {"Retry-After": "1"})
            await refusal(scope, exchange.receive, send)
            return
        preflight = self._cors.preflight(scope) if scope["method"] == "OPTIONS" else None
        if preflight is not None:
            await preflight(scope, exchange.receive, send)
            return
        route = None if scope.get("root_path") else self._direct_routes.get((scope["method"], scope["path"]))
        try:
            if route is None:
                await self._app(scope, exchange.receive, send)
            else:
                scope["route"] = route  # as Starlette's router sets it
                response = await route.endpoint(Request(scope, exchange.receive, send))
                await response(scope, exchange.receive, send)
        except Exception as error:
            if exchange.status:  # the response has begun: the server can only close the connection
                path = getattr(scope.get("route"), "path", "a path without a route")  # a path may contain a key
                _log.exception("%s %s failed in the middle of its response", scope["method"], path)
                raise
            handler = next(error_handlers[kind] for kind in type(error).__mro__ if kind in error_handlers)
            await handler(Request(scope), error)(scope, exchange.receive, send)


_log = logging.getLogger("lakebed.access")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts exchanges. The number of counters is bounded by routes, methods and statuses, whatever clients send.

    Attributes:
        received_bytes, sent_bytes: bytes of the bodies that were received and sent.
    """

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self._statuses: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def watch(self, exchange: Exchange, seconds: float) -> None:
        """Count one exchange."""
        method, route = exchange.scope["method"], _route_of(exchange)
        key = (method if method in _METHODS else "other", route, exchange.status)
        self._statuses[key] = self._statuses.get(key, 0) + 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = Histogram(SECONDS)
        histogram.observe(seconds)
        self.received_bytes += exchange.received_bytes
        self.sent_bytes += exchange.sent_bytes

    def statuses(self) -> Iterator[tuple[str, str, int, int]]:
        """Tuples of method, route, status and count."""
        for (method, route, status), count in self._statuses.items():
            yield method, route, status, count

    def seconds(self) -> Iterator[tuple[str, Histogram]]:
        """Tuples of route and histogram of durations, each to the end of the response."""
        yield from self._seconds.items()


def log_exchange(exchange: Exchange, seconds: float) -> None:
    """Log the request and its outcome on the logger `lakebed.access`, without key, body and query string.

    The record's `facts` are `method`, `route`, `status`, `ms`, `bytes_in`, `bytes_out`, and `object`
    and `key` (its id) if the request was admitted.
    """
    if not _log.isEnabledFor(logging.INFO):
        return
    scope = exchange.scope
    caller = scope.get("lakebed.caller")
    facts: dict[str, Any] = {
        "method": scope["method"],
        "route": _route_of(exchange),
        "status": exchange.status,
        "ms": round(seconds * 1000, 2),
        "bytes_in": exchange.received_bytes,
        "bytes_out": exchange.sent_bytes,
    }
    if caller is not None:
        facts |= {"object": caller.object, "key": caller.key}
    text = "%s %s %d %.1f ms"
    _log.info(text, facts["method"], facts["route"], facts["status"], facts["ms"], extra={"facts": facts})


def _route_of(exchange: Exchange) -> str:
    """The path of the route, with placeholders: the number of such paths is bounded, whatever clients send."""
    return getattr(exchange.scope.get("route"), "path", None) or "none"
