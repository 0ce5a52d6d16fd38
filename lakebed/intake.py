"""From a call of `track` to a receipt: what is admitted, what is refused, and who hears of a failure."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from lakebed.admission import admit
from lakebed.clock import Clock
from lakebed.decoding import Batch, decode_batch, decode_mappings
from lakebed.errors import InvalidEvent
from lakebed.events import Event, Receipt
from lakebed.tiers.pipeline import Pipeline

__all__ = ["Ack", "Intake"]

_T = TypeVar("_T")
_log = logging.getLogger("lakebed")
_KEPT_FAILURES = 100


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


class Intake:
    """Takes events for one object. Its methods are plain functions, and need a running loop.

    Attributes:
        submitted: items that callers have handed over since this opening.
        rejected: those refused for what they are.
        failures: the newest failures that nobody awaited.
    """

    def __init__(self, pipeline: Pipeline, clock: Clock, on_error: Callable[[BaseException], None] | None) -> None:
        self.submitted = 0
        self.rejected = 0
        self.failures: list[str] = []
        self._pipeline = pipeline
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
            admit(event, self._clock.now_us())
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

    def batch(self, items: Iterable[Any] | bytes | str, source: str | None) -> Ack[list[Receipt]]:
        """Store what is good of `items`; one receipt an item, in order."""
        now = self._clock.now_us()
        if isinstance(items, str):
            items = items.encode("utf-8", "surrogatepass")
        if isinstance(items, (bytes, bytearray, memoryview)):
            batch = decode_batch(bytes(items), now, source=source)
        else:
            batch = Batch.of(decode_mappings(items, now, source=source))
        self.submitted += len(batch)
        self.rejected += len(batch.rejected)
        stored = [self._pipeline.append(block) for block in batch.blocks]
        if len(stored) == 1 and not batch.rejected:
            return Ack(stored[0], list, self._unheard)
        return Ack(asyncio.gather(*stored), lambda done: _in_order(done, batch), self._unheard)

    def _unheard(self, error: BaseException) -> None:
        """Somebody's fire-and-forget failed: the app hears of it, and `check` shows it."""
        self.failures = [*self.failures[1 - _KEPT_FAILURES :], f"{type(error).__name__}: {error}"]
        _log.error("an event that nobody awaited was not stored: %s", error)
        if self._on_error is not None:
            self._on_error(error)


def _first(receipts: list[Receipt]) -> Receipt:
    return receipts[0]


def _in_order(done: list[list[Receipt]], batch: Batch) -> list[Receipt]:
    stored = itertools.chain.from_iterable(done)
    refused = {at: Receipt(None, one.message_id, "rejected", one.reason) for at, one in batch.rejected.items()}
    return [refused.get(at) or next(stored) for at in range(len(batch))]
