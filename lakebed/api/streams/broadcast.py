"""Broadcast: one message per second, made once, for any number of listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

__all__ = ["HEARTBEAT", "Broadcast", "Listener"]

_log = logging.getLogger("lakebed.api")
HEARTBEAT = b": still here\n\n"
_BEAT_S = 15.0
_REST = 20  # taking a message may use a twentieth of the time


class Listener:
    """One listener. It buffers one message: a slow listener gets the newest and misses the others.

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
        """The newest message that was not read yet, as soon as there is one; None after the end."""
        await self._ready.wait()
        message, self._latest = self._latest, None
        if not self._ended:
            self._ready.clear()
        return message

    def offer(self, message: bytes) -> None:
        """Make `message` the next one."""
        if message is HEARTBEAT and self._latest is not None:
            return
        self.skipped += self._latest is not None
        self._latest = message
        self._ready.set()

    def end(self) -> None:
        """End after the buffered message."""
        self._ended = True
        self._ready.set()


class Broadcast:
    """The messages of one object, as server-sent events.

    They are made while there are listeners: the first at once, then one every `interval_s`, but only if it differs from
    the last one; without a change a comment every 15 seconds keeps the stream alive. A later listener gets the last
    message at once. If a message takes long to make, the intervals are longer.

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
    """Only the class of the error: its message may contain paths."""
    return b"event: trouble\ndata: " + msgspec.json.encode({"code": type(error).__name__}) + b"\n\n"
