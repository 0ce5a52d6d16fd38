"""From a call of `track` to a receipt: what is admitted, what is refused, and who hears of a failure."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from lakebed.clock import Clock
from lakebed.errors import InvalidEvent
from lakebed.events.decoding import DecodedBatch, decode_batch, decode_mappings, items_as_sent
from lakebed.events.event import MAX_EVENT_BYTES, Event, Receipt
from lakebed.events.validation import validate
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetters, Refused

__all__ = ["Ack", "Ingest"]

_T = TypeVar("_T")
Keyed = str | Sequence[str | None] | None  # the id of the key with which a batch was sent, or one for each item
_log = logging.getLogger("lakebed")
_KEPT_FAILURES = 100
_MAX_SHARED = MAX_EVENT_BYTES + 1_024  # more than a context may have, and a time


class Ack(Awaitable[_T], Generic[_T]):
    """What `track` and `batch` return. Awaiting it means durable; it may be awaited more than once.

    One that is thrown away is fire-and-forget: the event is stored all the same, and a failure goes to `on_error`.
    Cancelling an await cancels nothing that was handed over.
    """

    __slots__ = ("_failed", "_future", "_heard", "_shape")

    def __init__(
        self, future: asyncio.Future[Any], shape: Callable[[Any], _T], failed: Callable[[BaseException], None]
    ) -> None:
        self._future = future
        self._shape = shape
        self._failed = failed
        self._heard = False

    def __await__(self) -> Generator[Any, None, _T]:
        self._heard = True
        try:
            done = yield from asyncio.shield(self._future).__await__()
        except asyncio.CancelledError:
            self._heard = False  # nobody waited to the end, so nobody would hear of a failure
            raise
        return self._shape(done)

    def __del__(self) -> None:
        if self._heard:
            return
        failed = self._failed
        if self._future.done():  # its loop may be closed by now, so no callback
            _report(self._future, failed)
        else:
            self._future.add_done_callback(lambda done: _report(done, failed))


def _report(done: asyncio.Future[Any], failed: Callable[[BaseException], None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        failed(error)


class Ingest:
    """Takes events for one object. Its methods are plain functions, and need a running loop.

    Attributes:
        submitted: items that callers have handed over since this opening.
        rejected: those refused for what they are.
        failures: the newest failures that nobody awaited.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        letters: DeadLetters,
        clock: Clock,
        on_error: Callable[[BaseException], None] | None,
    ) -> None:
        self.submitted = 0
        self.rejected = 0
        self.failures: list[str] = []
        self._pipeline = pipeline
        self._letters = letters
        self._keeping: set[asyncio.Task[Any]] = set()
        self._clock = clock
        self._on_error = on_error

    @property
    def received(self) -> int:
        """Items that were answered: stored, duplicate or rejected. What the log could not take was never received."""
        return self.submitted - self._pipeline.failed - self._pipeline.pending_events

    def one(self, build: Callable[[], Event]) -> Ack[Receipt]:
        """Admit the event that `build` makes, and store it. The Ack fails with InvalidEvent if it is refused."""
        try:
            event = build()
            validate(event, self._clock.now_us())
        except InvalidEvent as error:
            self.submitted += 1
            self.rejected += 1
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return Ack(refused, _first, self._unheard)
        self.submitted += 1
        return Ack(self._pipeline.append([event]), _first, self._unheard)

    def own(self, event: Event) -> Ack[Receipt]:
        """Store an event that Lakebed itself writes, in the form that `admit` leaves."""
        self.submitted += 1
        return Ack(self._pipeline.append([event]), _first, self._unheard)

    def batch(
        self, items: Iterable[Any] | bytes | str, source: str | None, *, keep_refused: bool = False, key: Keyed = None
    ) -> Ack[list[Receipt]]:
        """Store what is good of `items`; one receipt an item, in order.

        With `keep_refused` what is refused is a dead letter before the Ack resolves, or fails because of it. Where the
        log could not take what is good, nothing is kept either: all of it will be sent again.
        """
        now = self._clock.now_us()
        sent = _as_sent(items)
        try:
            batch = self._decoded(sent, now, source)
        except InvalidEvent as error:
            if not keep_refused or not isinstance(sent, bytes):
                raise
            return self.refuse(sent, error.reason, source, _of(key, 0), error)
        self.submitted += len(batch)
        self.rejected += len(batch.rejected)
        stored = [self._pipeline.append(part) for part in batch.parts]
        if len(stored) == 1 and not batch.rejected:
            return Ack(stored[0], list, self._unheard)
        done: asyncio.Future[Any] = asyncio.gather(*stored)
        if keep_refused and batch.rejected:
            done = self._run(self._kept(done, _refused(sent, batch, source, key), now))
        return Ack(done, lambda receipts: _in_order(receipts, batch), self._unheard)

    def _decoded(self, sent: bytes | list[Any], now: int, source: str | None) -> DecodedBatch:
        if isinstance(sent, bytes):
            return decode_batch(sent, now, source=source)
        return DecodedBatch.of(decode_mappings(sent, now, source=source))

    def again(self, events: Sequence[Event]) -> asyncio.Future[list[Receipt]]:
        """Store events of a dead letter that were admitted. They are received once more."""
        self.submitted += len(events)
        return self._pipeline.append(events)

    def count_rejected(self) -> None:
        """A dead letter was handed in once more, and refused once more."""
        self.submitted += 1
        self.rejected += 1

    def refuse(
        self,
        raw: bytes,
        reason: str,
        source: str | None,
        key: str | None,
        error: InvalidEvent | None = None,
    ) -> Ack[list[Receipt]]:
        """Keep a body of which nothing can be taken: one item that was received and rejected. Then raise `error`."""
        self.submitted += 1
        self.rejected += 1
        done: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        if error is None:
            done.set_result([Receipt(None, None, "rejected", reason)])
        else:
            done.set_exception(error)
        refused = [Refused(reason=reason, raw=raw, source=source, key=key)]
        return Ack(self._run(self._kept(done, refused, self._clock.now_us())), list, self._unheard)

    async def _kept(self, done: asyncio.Future[_T], refused: list[Refused], now_us: int) -> _T:
        """What `done` gives, after `refused` was kept. It is not where `done` says that what is good was not stored."""
        try:
            receipts = await done
        except InvalidEvent:
            await self._letters.keep(refused, now_us)
            raise
        await self._letters.keep(refused, now_us)
        return receipts

    def _run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return task

    async def settle(self) -> None:
        """Return when all that is to be kept is kept, or has failed."""
        while self._keeping:
            await asyncio.wait(set(self._keeping))

    def _unheard(self, error: BaseException) -> None:
        """Somebody's fire-and-forget failed: the app hears of it, and `check` shows it."""
        self.failures = [*self.failures[1 - _KEPT_FAILURES :], f"{type(error).__name__}: {error}"]
        _log.error("an event that nobody awaited was not stored: %s", error)
        if self._on_error is not None:
            self._on_error(error)


def _of(key: Keyed, at: int) -> str | None:
    return key if key is None or isinstance(key, str) else key[at]


def _as_sent(items: Iterable[Any] | bytes | str) -> bytes | list[Any]:
    if isinstance(items, str):
        return items.encode("utf-8", "surrogatepass")
    return bytes(items) if isinstance(items, (bytes, bytearray, memoryview)) else list(items)


def _refused(sent: bytes | list[Any], batch: DecodedBatch, source: str | None, key: Keyed) -> list[Refused]:
    raws, shared = items_as_sent(sent) if isinstance(sent, bytes) else (list(map(_as_json, sent)), b"{}")
    if len(shared) > _MAX_SHARED and isinstance(sent, bytes):  # not once for each of its events
        if len(batch.rejected) == len(batch):
            return [Refused(reason=batch.rejected[0].reason, raw=sent, source=source, key=_of(key, 0))]
        shared = b"{}"
    return [
        Refused(
            reason=one.reason,
            raw=raws[at],
            shared=shared,
            message_id=one.message_id,
            source=source,
            key=_of(key, at),
        )
        for at, one in batch.rejected.items()
    ]


def _as_json(item: Any) -> bytes:
    """What there is to keep of a Python value that was no event."""
    try:
        return msgspec.json.encode(item, enc_hook=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, lone surrogates, a circle
        return repr(item).encode("utf-8", "backslashreplace")


def _first(receipts: list[Receipt]) -> Receipt:
    return receipts[0]


def _in_order(done: list[list[Receipt]], batch: DecodedBatch) -> list[Receipt]:
    stored = itertools.chain.from_iterable(done)
    refused = {at: Receipt(None, one.message_id, "rejected", one.reason) for at, one in batch.rejected.items()}
    return [refused.get(at) or next(stored) for at in range(len(batch))]
