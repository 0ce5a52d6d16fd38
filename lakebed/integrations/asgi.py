"""TrackRequests: an ASGI app's requests as events: method, route, status, how long it took, and for whom."""

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
Told = Callable[[Scope], str | int | None]

_log = logging.getLogger("lakebed.requests")
_SERVER_ERROR = 500
_CLIENT_GONE = 499  # nginx's number for an answer that its client did not wait for
_MOST_PATH = 1_000
_LOG_EVERY_S = 10.0


class _Tracks(Protocol):
    def track(self, event: str, properties: Mapping[str, Any], **options: Any) -> Any: ...


def route_template(scope: Scope) -> str | None:
    """The route that a request was answered by, as it was declared: `/orders/{id}`, not `/orders/17`.

    Of Starlette and FastAPI, mounts included; a value in the path of a mount becomes its parameter's name too. None
    where no route matched: what scanners ask for is no path of this app. The path itself where nothing routes.
    """
    route: str | None = getattr(scope.get("route"), "path", None)
    params = scope.get("path_params") or {}
    if route is not None:
        root = scope.get("root_path", "")
        mounted: str = root.removeprefix(scope.get("app_root_path", root))
        if mounted and params:
            mounted = _templated(mounted, {name: value for name, value in params.items() if f"{{{name}" not in route})
        return (mounted + route)[:_MOST_PATH]
    path: str = scope.get("path", "")
    if scope.get("endpoint") is not None:  # a router that says what it found and not by which route
        return _templated(path, params)[:_MOST_PATH]
    return None if "router" in scope or "app" in scope else path[:_MOST_PATH]


def _templated(path: str, params: Mapping[str, Any]) -> str:
    names = {str(value): f"{{{name}}}" for name, value in params.items()}
    return "/".join(names.get(part, part) for part in path.split("/"))


class TrackRequests:
    """An ASGI app around another that stores an event for each of its HTTP requests. The app never notices.

        app = TrackRequests(app, analytics, user=lambda scope: scope["user"].id)

    The event has the built-in promoted properties `method`, `path` (the route as it was declared), `status_code`,
    `duration_ms` (from when the request arrived to the end of its answer, streams to their last byte, without
    background tasks) and `organization_id`, and its `timestamp` is when the request arrived. Two properties are there
    only when there is something to say: `error`, the class of the exception that left the app, whose status is 500 if
    it had sent none or a good one, and `disconnected`, true where the client did not wait for the end, whose status is
    499 if none was sent. WebSockets and lifespan pass untouched.

    Tracking is fire-and-forget: no answer waits for it, and whatever goes wrong changes no answer. What could not be
    handed over (a closed object, a `user` that raises) counts in `failures` and goes to `on_error` and the log; what
    could not be stored afterwards (a full disk, Backpressure) goes to `on_error` and `check()` of the object.

    Args:
        app: what answers.
        analytics: an `Analytics` object, or a stub of one. It may be opened later, in the app's lifespan.
        user: gives the user id of a request, after its answer, so that what an authentication put into the scope is
            there. A plain function; None is nobody.
        organization: likewise, the organization that it is for.
        path: gives the path that is stored.
        skip: paths, as `path` gives them, of which nothing is stored: health checks.
        event: the name of the events.
        on_error: called with each failure that counts here.
        clock: of the object, if it is not the system's.

    Attributes:
        failures: requests of which something could not be handed over.
    """

    def __init__(
        self,
        app: App,
        analytics: _Tracks,
        *,
        user: Told | None = None,
        organization: Told | None = None,
        path: Callable[[Scope], str | None] = route_template,
        skip: Collection[str] = (),
        event: str = "api.request",
        on_error: Callable[[Exception], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, told in (("user", user), ("organization", organization), ("path", path)):
            if inspect.iscoroutinefunction(told):
                raise TypeError(f"{name} is a coroutine function: give a plain one, nobody awaits it")
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
        """As ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(receive, send, self._clock)
        raised: BaseException | None = None
        try:
            await self._app(scope, answer.receive, answer.send)
        except BaseException as error:
            raised = error
            raise
        finally:
            self._record(scope, answer, raised)

    def _record(self, scope: Scope, answer: _Answer, raised: BaseException | None) -> None:
        try:
            path = self._path(scope)
            if path in self._skip:
                return
            properties = answer.told(raised)
            properties["method"] = scope["method"]
            if path is not None:
                properties["path"] = path
            organization = self._ask(self._organization, scope)
            if organization is not None:
                properties["organization_id"] = str(organization)
            user = self._ask(self._user, scope)
            # Its result is thrown away: the object itself tells of what it cannot store.
            self._analytics.track(self._event, properties, user_id=user, timestamp=answer.began_us / 1e6)
        except Exception as error:  # noqa: BLE001 - the app's answer is not to suffer
            self._fail(error)

    def _ask(self, told: Told | None, scope: Scope) -> str | int | None:
        if told is None:
            return None
        try:
            return told(scope)
        except Exception as error:  # noqa: BLE001 - a request without a user is better than none
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        now = self._clock.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:  # not once for each request of a busy app
            self._logged_at = now
            _log.error("a request was not tracked, or not all of it (%d so far): %s", self.failures, error)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:  # noqa: BLE001 - the same
                _log.exception("on_error of TrackRequests failed")


class _Answer:
    """One request's answer on its way: its status, when it began and when it ended."""

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
        if message["type"] == "http.disconnect" and self._ended is None:  # after the end it is only how things end
            self._gone = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
        try:
            await self._send(message)
        except OSError:  # as servers say that the client is gone, since ASGI 2.4
            self._gone = True
            raise
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            self._ended = self._clock.monotonic()

    def told(self, raised: BaseException | None) -> dict[str, Any]:
        """The properties that follow from how it went."""
        ended = self._ended if self._ended is not None else self._clock.monotonic()
        status, gone = self._status, self._gone and self._ended is None
        if not status:
            status = _CLIENT_GONE if gone else _SERVER_ERROR  # servers answer 500 where an app does not
        if raised is not None and not gone:
            status = max(status, _SERVER_ERROR)
        properties: dict[str, Any] = {"duration_ms": round((ended - self._began) * 1000, 3), "status_code": status}
        if raised is not None and not gone:
            properties["error"] = type(raised).__name__
        if gone:
            properties["disconnected"] = True
        return properties
