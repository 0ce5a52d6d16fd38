"""LiveStream: the live snapshot of an object, as server-sent events: one message per second for all listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from lakebed.api.auth import Auth, Caller
from lakebed.api.errors import Refusal
from lakebed.api.openapi.document import operation
from lakebed.clock import Clock, SystemClock, from_us
from lakebed.monitoring.live_snapshot import LiveSnapshot

__all__ = ["HEARTBEAT", "Broadcast", "LiveStream"]

_log = logging.getLogger("lakebed.api")
HEARTBEAT = b": still here\n\n"
_BEAT_S = 15.0
_REST = 20  # making messages may take a twentieth of the time


class Listener:
    """One listener of a broadcast. It buffers one message: a slow listener gets the newest and misses the others.

    Attributes:
        skipped: messages that were replaced before they were read.
    """

    __slots__ = ("_ended", "_latest", "_ready", "skipped")

    def __init__(self) -> None:
        self._latest: bytes | None = None
        self._ready = asyncio.Event()
        self._ended = False
        self.skipped = 0

    async def next(self) -> bytes | None:
        """Wait for a message that was not read yet and return the newest; None after the end."""
        await self._ready.wait()
        message, self._latest = self._latest, None
        if not self._ended:
            self._ready.clear()
        return message

    def offer(self, message: bytes) -> None:
        """Buffer `message`, in place of one that was not read yet."""
        if message is HEARTBEAT and self._latest is not None:
            return
        self.skipped += self._latest is not None
        self._latest = message
        self._ready.set()

    def end(self) -> None:
        """End the listener after the buffered message."""
        self._ended = True
        self._ready.set()


class Broadcast:
    """The messages of one object, as server-sent events.

    Messages are made while there are listeners: the first at once, then one every `interval_s`, but only if it differs
    from the last one; without a change a comment every 15 seconds keeps the stream alive. A later listener gets the
    last message at once. If a message takes long to make, the intervals are longer.

    Args:
        take: makes a message, a struct with the field `at`. A change of `at` alone makes no new message.
        interval_s: seconds between two messages.
        on_end: called an interval after the last listener left; the broadcast has ended then.

    A failure of `take` reaches each listener as the event `trouble`, and ends them all.
    """

    def __init__(
        self,
        take: Callable[[], Awaitable[msgspec.Struct]],
        interval_s: float,
        on_end: Callable[[Broadcast], None],
        beat_s: float = _BEAT_S,
    ) -> None:
        self._take = take
        self._interval_s = interval_s
        self._on_end = on_end
        self._beats = max(1, round(beat_s / interval_s))
        self._listeners: set[Listener] = set()
        self._last: bytes | None = None
        self._task: asyncio.Task[None] | None = None
        self.taken = 0

    def __len__(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    def join(self) -> Listener:
        """A new listener. The caller must call `leave`."""
        listener = Listener()
        self._listeners.add(listener)
        if self._last is not None:
            listener.offer(self._last)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a listener. Idempotent."""
        self._listeners.discard(listener)

    async def close(self) -> None:
        """End every listener and stop making messages."""
        self._end()
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _end(self) -> None:
        for listener in self._listeners:
            listener.end()
        self._listeners.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        before: msgspec.Struct | None = None
        quiet = 0
        try:
            while self._listeners:
                started = loop.time()
                snapshot = await self._take()
                self.taken += 1
                same = before is not None and snapshot == msgspec.structs.replace(before, at=snapshot.at)  # type: ignore[attr-defined]  # `take` promises it
                if not same:
                    before, self._last, quiet = snapshot, _message(snapshot), 0
                    self._send(self._last)
                elif (quiet := quiet + 1) % self._beats == 0:
                    self._send(HEARTBEAT)
                spent = loop.time() - started
                await asyncio.sleep(max(self._interval_s - spent, spent * (_REST - 1)))
        except Exception as error:  # noqa: BLE001 - listeners get an error, and the operator a log line
            _log.warning("A live stream ended: %s", error, exc_info=error)
            self._send(_trouble(error))
        finally:
            self._task = None
            self._end()
            self._on_end(self)

    def _send(self, message: bytes) -> None:
        for listener in self._listeners:
            listener.offer(message)


def _message(snapshot: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(snapshot) + b"\n\n"


def _trouble(error: Exception) -> bytes:
    """The event `trouble`. It has only the class of the error, whose message may contain paths."""
    return b"event: trouble\ndata: " + msgspec.json.encode({"code": type(error).__name__}) + b"\n\n"


_STALLED_S = 30.0
_CHECK_AGAIN_S = 15.0
_RETRY = b"retry: 2000\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second keeps nginx from buffering messages
_NO_LONGER_ADMITTED = (401, 403)


class LiveStream:
    """`GET /live`: all listeners of one object share one computation and one encoded message.

    A listener of an object that does not exist yet gets empty snapshots: the dashboard may be open before the first
    event is sent.

    Args:
        clock: gives the time of an empty snapshot.
        interval_s: minimum seconds between two messages.
        max_listeners: maximum number of listeners at once; a further one is refused with 503.
    """

    def __init__(
        self, auth: Auth, clock: Clock | None = None, *, interval_s: float = 1.0, max_listeners: int = 10_000
    ) -> None:
        self._auth = auth
        self._clock = clock if clock is not None else SystemClock()
        self._interval_s = interval_s
        self._max_listeners = max_listeners
        self._broadcasts: dict[str, Broadcast] = {}
        self._closed = False

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/live", self.live, methods=["GET"])]

    @operation(scope="read", answer={"text/event-stream": str}, refusals=[503])
    async def live(self, request: Request) -> Response:
        """Server-sent events, each with a whole `LiveSnapshot` as JSON: a missed message loses nothing."""
        caller = self._auth.admit(request, "read")
        if self._closed or sum(map(len, self._broadcasts.values())) >= self._max_listeners:
            message = "The server stops" if self._closed else f"There are {self._max_listeners} listeners already"
            raise Refusal(503, "NO_ROOM", message, headers={"Retry-After": "5"})
        broadcast = self._broadcasts.get(caller.object)
        if broadcast is None:
            broadcast = Broadcast(
                lambda: self._snapshot(caller), self._interval_s, lambda _: self._forget(caller.object)
            )
            self._broadcasts[caller.object] = broadcast
        return _Stream(broadcast, lambda: self._is_admitted(request))

    async def _snapshot(self, caller: Caller) -> LiveSnapshot:
        try:
            target = self._auth.existing(caller)
        except Refusal:
            return LiveSnapshot(at=from_us(self._clock.now_us()), name=caller.object)
        snapshot: LiveSnapshot = await target.pulse()
        return snapshot

    def _is_admitted(self, request: Request) -> bool:
        """Whether the listener still has access: its key may have been revoked."""
        try:
            self._auth.admit(request, "read")
        except Refusal as refusal:
            return refusal.status not in _NO_LONGER_ADMITTED
        return True

    def _forget(self, name: str) -> None:
        self._broadcasts.pop(name, None)

    def open(self) -> None:
        """Accept listeners from now on, even after a `close`."""
        self._closed = False

    async def close(self) -> None:
        """End every stream and refuse further ones, so that the server does not wait for listeners."""
        self._closed = True
        for broadcast in list(self._broadcasts.values()):
            await broadcast.close()


class _Stream(Response):
    """The messages of a broadcast to one client, until either ends.

    A client that reads nothing for half a minute is dropped: its socket is full, and only closing frees it.
    """

    media_type = "text/event-stream"

    def __init__(self, broadcast: Broadcast, admitted: Callable[[], bool]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._broadcast = broadcast
        self._admitted = admitted

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        listener = self._broadcast.join()
        disconnected = asyncio.ensure_future(_disconnected(receive))
        disconnected.add_done_callback(lambda _: listener.end())
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
            async for message in self._admissible(listener):
                if disconnected.done():
                    return
                async with asyncio.timeout(_STALLED_S):
                    await send({"type": "http.response.body", "body": message, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.info("A listener of /live read nothing for %s s and was dropped", _STALLED_S)
        finally:
            self._broadcast.leave(listener)
            disconnected.cancel()

    async def _admissible(self, listener: Listener) -> AsyncIterator[bytes]:
        """Yield the messages of `listener` until the client loses access."""
        loop = asyncio.get_running_loop()
        check_at = loop.time() + _CHECK_AGAIN_S
        while (message := await listener.next()) is not None:
            if loop.time() >= check_at:
                if not self._admitted():
                    return
                check_at = loop.time() + _CHECK_AGAIN_S
            yield message


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
