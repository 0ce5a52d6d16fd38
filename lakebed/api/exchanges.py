"""Exchanges: the middleware around every route. It counts, refuses what is too much, and tells who watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakebed.api.cors import Cors
from lakebed.api.errors import Refusal, error_handlers, error_response
from lakebed.api.exchange import Exchange, Held
from lakebed.clock import Clock

__all__ = ["Exchanges", "Watcher"]

_log = logging.getLogger("lakebed.api")
_ALWAYS = "/health"  # is answered also when nothing else is

Watcher = Callable[[Exchange, float], None]


class Exchanges:
    """An ASGI middleware, inside the app so that it also holds where the app is mounted in another.

    Args:
        app: what answers.
        cors: what browsers are told.
        clock: measures.
        max_waiting: requests whose answer has not begun; one more is 503. A stream that has begun does not count.
        max_held_bytes: of the bodies of those; one that goes beyond it is 503.
        watchers: called after each exchange with it and its seconds. They must not raise.
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
    ) -> None:
        self._app = app
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
        try:
            await self._app(scope, exchange.receive, send)
        except Exception as error:
            if exchange.status:  # the answer has begun and cannot be taken back: the server closes the connection
                route = getattr(scope.get("route"), "path", "a path without a route")  # the path may have a key in it
                _log.exception("%s %s failed in the middle of its answer", scope["method"], route)
                raise
            handler = error_handlers[Refusal if isinstance(error, Refusal) else Exception]
            await handler(Request(scope), error)(scope, exchange.receive, send)
