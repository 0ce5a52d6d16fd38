"""TrackRequests: requests of an ASGI app as events: method, route, status, duration, user and organisation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Protocol

from lakebed.clock import Clock, SystemClock

__all__ = ["TrackRequests", "route_template"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
FromScope = Callable[[Scope], str | int | None]

_log = logging.getLogger("lakebed.requests")
_SERVER_ERROR = 500
_CLIENT_GONE = 499  # nginx's status for a request whose client disconnected before the response
_MAX_PATH = 1_000
_LOG_EVERY_S = 10.0


class _Tracks(Protocol):
    def track(self, event: str, properties: Mapping[str, Any], **options: Any) -> Any: ...


def route_template(scope: Scope) -> str | None:
    """The path of a request's route as it was declared: `/orders/{id}`, not `/orders/17`.

    Works with Starlette and FastAPI, mounts included; a value in the path of a mount is replaced by its parameter's
    name too. Returns None if no route matched, so that requests of scanners give no paths, and the path itself if the
    app has no router.
    """
    route: str | None = getattr(scope.get("route"), "path", None)
    params = scope.get("path_params") or {}
    if route is not None:
        root = scope.get("root_path", "")
        mounted: str = root.removeprefix(scope.get("app_root_path", root))
        if mounted and params:
            mounted = _templated(mounted, {name: value for name, value in params.items() if f"{{{name}" not in route})
        return (mounted + route)[:_MAX_PATH]
    path: str = scope.get("path", "")
    if scope.get("endpoint") is not None:  # the router sets the endpoint but not the route
        return _templated(path, params)[:_MAX_PATH]
    return None if "router" in scope or "app" in scope else path[:_MAX_PATH]


def _templated(path: str, params: Mapping[str, Any]) -> str:
    names = {str(value): f"{{{name}}}" for name, value in params.items()}
    return "/".join(names.get(part, part) for part in path.split("/"))


class TrackRequests:
    """An ASGI middleware that stores an event for each HTTP request of an app, without effect on its responses.

        app = TrackRequests(app, analytics, user=lambda scope: scope["user"].id)

    The event has the built-in promoted properties `method`, `path` (the route as it was declared), `status_code`,
    `duration_ms` (from the arrival of the request to the end of its response, streams to their last byte, without
    background tasks) and `organization_id`. Its `timestamp` is the arrival of the request. Two properties are optional:
    `error`, the class of an exception that the app raised (the status is then 500, unless the app had sent an error
    status), and `disconnected`, true if the client disconnected before the end (the status is then 499, unless the app
    had sent one). WebSockets and lifespan pass through unchanged.

    Tracking is fire-and-forget: no response waits for it, and no failure of it changes a response. A request that
    cannot be tracked (the object is closed, `user` raises) counts in `failures` and goes to `on_error` and the log. If
    storing an event fails later (a full disk, Backpressure), the object's `on_error` and `check()` get the error.

    Args:
        app: the ASGI app.
        analytics: an `Analytics` object, or a stub of one. It may be opened later, in the app's lifespan.
        user: function from the scope to the user id. It is called after the response, when authentication has changed
            the scope. Not a coroutine function; None means no user.
        organization: function from the scope to the organisation's id, called like `user`; None means no organisation.
        path: function from the scope to the path that is stored.
        skip: paths, as `path` returns them, that are not stored, such as health checks.
        event: name of the events.
        on_error: function that is called with each error that `failures` counts.
        clock: clock of the object, if it is not the system's.

    Attributes:
        failures: number of requests that were not tracked, or not with all properties.
    """

    def __init__(
        self,
        app: App,
        analytics: _Tracks,
        *,
        user: FromScope | None = None,
        organization: FromScope | None = None,
        path: Callable[[Scope], str | None] = route_template,
        skip: Collection[str] = (),
        event: str = "api.request",
        on_error: Callable[[Exception], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, function in (("user", user), ("organization", organization), ("path", path)):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{name} is a coroutine function, which is not awaited here: pass a plain function")
        self.failures = 0
        self._app = app
        self._analytics = analytics
        self._user = user
        self._organization = organization
        self._path = path
        self._skip = frozenset(skip)
        self._event = event
        self._on_error = on_error
        self._clock = clock if clock is not None else SystemClock()
        self._logged_at = -_LOG_EVERY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(receive, send, self._clock)
        raised: BaseException | None = None
        try:
            await self._app(scope, response.receive, response.send)
        except BaseException as error:
            raised = error
            raise
        finally:
            self._record(scope, response, raised)

    def _record(self, scope: Scope, response: _Response, raised: BaseException | None) -> None:
        try:
            path = self._path(scope)
            if path in self._skip:
                return
            properties = response.properties(raised)
            properties["method"] = scope["method"]
            if path is not None:
                properties["path"] = path
            organization = self._call(self._organization, scope)
            if organization is not None:
                properties["organization_id"] = str(organization)
            user = self._call(self._user, scope)
            # The future is not awaited: the object itself reports events that it cannot store.
            self._analytics.track(self._event, properties, user_id=user, timestamp=response.began_us / 1e6)
        except Exception as error:  # noqa: BLE001 - it must not change the app's response
            self._fail(error)

    def _call(self, function: FromScope | None, scope: Scope) -> str | int | None:
        if function is None:
            return None
        try:
            return function(scope)
        except Exception as error:  # noqa: BLE001 - the request is still tracked, without this property
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        now = self._clock.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:  # a busy app would log a line for each request
            self._logged_at = now
            _log.error("a request was not tracked, or not with all properties (%d so far): %s", self.failures, error)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:  # noqa: BLE001 - as above
                _log.exception("on_error of TrackRequests failed")


class _Response:
    """The response to one request: its status, and the times when the request arrived and the response ended."""

    __slots__ = ("_began", "_clock", "_ended", "_gone", "_receive", "_send", "_status", "began_us")

    def __init__(self, receive: Receive, send: Send, clock: Clock) -> None:
        self.began_us = clock.now_us()
        self._clock = clock
        self._began = clock.monotonic()
        self._ended: float | None = None
        self._gone = False
        self._receive = receive
        self._send = send
        self._status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._ended is None:  # after the end every client disconnects
            self._gone = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
        try:
            await self._send(message)
        except OSError:  # since ASGI 2.4, servers raise OSError if the client has disconnected
            self._gone = True
            raise
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            self._ended = self._clock.monotonic()

    def properties(self, raised: BaseException | None) -> dict[str, Any]:
        """The properties that follow from the response and from the exception that the app raised."""
        ended = self._ended if self._ended is not None else self._clock.monotonic()
        status, gone = self._status, self._gone and self._ended is None
        if not status:
            status = _CLIENT_GONE if gone else _SERVER_ERROR  # a server sends 500 if the app sends no response
        if raised is not None and not gone:
            status = max(status, _SERVER_ERROR)
        properties: dict[str, Any] = {"duration_ms": round((ended - self._began) * 1000, 3), "status_code": status}
        if raised is not None and not gone:
            properties["error"] = type(raised).__name__
        if gone:
            properties["disconnected"] = True
        return properties
