"""Exchanges: the middleware around every route. It counts, refuses what is too much, and tells who watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lakebed.api.cors import Cors
from lakebed.api.errors import error_handlers, error_response
from lakebed.api.exchange import Exchange, Held
from lakebed.clock import Clock

__all__ = ["Exchanges", "Watcher"]

_log = logging.getLogger("lakebed.api")
_ALWAYS = "/health"  # is answered also when nothing else is

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
