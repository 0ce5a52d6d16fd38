"""From a call of `track` to a receipt: validation, storing, rejected items, and reports of failures."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from lakebed.clock import Clock, Moment
from lakebed.errors import InvalidEvent
from lakebed.events.decoding import DecodedBatch, decode_batch, decode_mappings, items_as_sent
from lakebed.events.event import MAX_EVENT_BYTES, Event, Receipt
from lakebed.events.validation import from_call, validate
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetters, RejectedItem

__all__ = ["Ack", "Ingest"]

_T = TypeVar("_T")
Properties = Mapping[str, Any] | None
KeyIds = str | Sequence[str | None] | None  # the id of the API key of a batch, or one id for each item
_log = logging.getLogger("lakebed")
_MAX_FAILURES = 100
_MAX_SHARED = MAX_EVENT_BYTES + 1_024  # more than the longest context, with a time


class Ack(Awaitable[_T], Generic[_T]):
    """The acknowledgement that `track` and `batch` return. When an await returns, the events are durable.

    An Ack may be awaited repeatedly. Without an await the events are stored too, and a failure goes to `on_error`.
    Cancelling an await does not cancel the storing.
    """

    __slots__ = ("_awaited", "_future", "_on_failure", "_to_result")

    def __init__(
        self, future: asyncio.Future[Any], to_result: Callable[[Any], _T], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._future = future
        self._to_result = to_result
        self._on_failure = on_failure
        self._awaited = False

    def __await__(self) -> Generator[Any, None, _T]:
        self._awaited = True
        try:
            outcome = yield from asyncio.shield(self._future).__await__()
        except asyncio.CancelledError:
            self._awaited = False  # this await will not raise a failure, so `on_failure` has to get it
            raise
        return self._to_result(outcome)

    def __del__(self) -> None:
        if self._awaited:
            return
        on_failure = self._on_failure
        if self._future.done():  # the future's loop may be closed by now, so no callback
            _report(self._future, on_failure)
        else:
            self._future.add_done_callback(lambda done: _report(done, on_failure))


def _report(done: asyncio.Future[Any], on_failure: Callable[[BaseException], None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        on_failure(error)


class Ingest:
    """Accepts the events of one object. The methods that store are plain functions, and need a running loop.

    Attributes:
        submitted: the number of items that callers passed since this opening.
        rejected: the number of submitted items that were invalid.
        failures: the newest failures (at most 100) of calls that were not awaited, as text.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        dead_letters: DeadLetters,
        clock: Clock,
        on_error: Callable[[BaseException], None] | None,
    ) -> None:
        self.submitted = 0
        self.rejected = 0
        self.failures: list[str] = []
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._storing: set[asyncio.Task[Any]] = set()  # the tasks that store dead letters
        self._clock = clock
        self._on_error = on_error

    @property
    def received(self) -> int:
        """The number of items with a receipt: stored, duplicate or rejected. Failed and pending items do not count."""
        return self.submitted - self._pipeline.failed - self._pipeline.pending_events

    def track(
        self,
        event: str,
        properties: Properties = None,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        group_id: str | None = None,
        session_id: str | None = None,
        timestamp: Moment | float | None = None,
        message_id: str | None = None,
        context: Properties = None,
    ) -> Ack[Receipt]:
        """Store that `event` happened. Awaiting the result raises InvalidEvent, DiskFull, LogUnavailable, Backpressure.

        Tracking calls are plain functions that return an awaitable. When an await returns, the event is durable. A call
        without an await is fire-and-forget: its failure goes to `on_error` and `check()`.

        Args:
            event: the name of the event, at most 200 characters.
            properties: JSON values; the event has at most 32 KB.
            timestamp: the time of the event, if not now: any past, at most 24 hours ahead. A datetime has a time zone.
            message_id: a retry with the same id within 24 hours stores nothing and gets the status "duplicate".
        """
        return self._call(
            "track",
            properties,
            event=event,
            user_id=user_id,
            anonymous_id=anonymous_id,
            group_id=group_id,
            session_id=session_id,
            timestamp=timestamp,
            message_id=message_id,
            context=context,
        )

    def page(
        self, /, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a page view. `ids` are keywords as in `track`; a single positional argument is the name."""
        name, category = (category, None) if name is None else (name, category)
        return self._call("page", properties, name=name, category=category, **ids)

    def screen(
        self, /, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a screen view. The arguments are the same as in `page`."""
        name, category = (category, None) if name is None else (name, category)
        return self._call("screen", properties, name=name, category=category, **ids)

    def identify(self, /, user_id: str | None = None, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store traits of a person. Needs a `user_id` or an `anonymous_id`."""
        return self._call("identify", traits, user_id=user_id, **ids)

    def group(self, /, group_id: str, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store that a person belongs to a group, and the traits of that group."""
        return self._call("group", traits, group_id=group_id, **ids)

    def alias(self, /, user_id: str, previous_id: str, **ids: Any) -> Ack[Receipt]:
        """Store that `previous_id` and `user_id` are one person."""
        return self._call("alias", None, user_id=user_id, previous_id=previous_id, **ids)

    def _call(self, kind: str, properties: Properties, **fields: Any) -> Ack[Receipt]:
        try:
            event = from_call(kind, properties, **fields)
        except InvalidEvent as error:
            return self._reject(error)
        return self.event(event)

    def event(self, event: Event) -> Ack[Receipt]:
        """Validate and store an event. If the event is invalid, the Ack fails with InvalidEvent."""
        try:
            validate(event, self._clock.now_us())
        except InvalidEvent as error:
            return self._reject(error)
        self.submitted += 1
        return Ack(self._pipeline.append([event]), _first, self._on_unawaited)

    def _reject(self, error: InvalidEvent) -> Ack[Receipt]:
        self.submitted += 1
        self.rejected += 1
        rejected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        rejected.set_exception(error)
        return Ack(rejected, _first, self._on_unawaited)

    def own(self, event: Event) -> Ack[Receipt]:
        """Store an event that Lakebed itself writes, in the form that `validate` produces."""
        self.submitted += 1
        return Ack(self._pipeline.append([event]), _first, self._on_unawaited)

    def batch(
        self,
        items: Iterable[Mapping[str, Any] | Event] | bytes | str,
        *,
        source: str | None = "python",
        keep_refused: bool = False,
        key: KeyIds = None,
    ) -> Ack[list[Receipt]]:
        """Store many events: mappings (with Segment's names or Lakebed's), or JSON or NDJSON as bytes or text.

        An await returns one Receipt for each item, in order. An invalid item is "rejected" with a reason; the others
        are stored. With `keep_refused`, rejected items are stored as dead letters before the Ack resolves; if that
        fails, the Ack fails. If the log cannot store the valid items, no dead letter is stored: a retry sends all.

        Args:
            source: the `source` of events that have none.
            keep_refused: store rejected items as dead letters, durably, before the Ack resolves.
            key: the id of the API key with which the items were sent, for dead letters; or one id for each item.

        Raises:
            InvalidEvent: the bytes as a whole are not JSON. Raised at once; if `keep_refused`, by the await.
        """
        now = self._clock.now_us()
        sent = _as_sent(items)
        try:
            batch = self._decode(sent, now, source)
        except InvalidEvent as error:
            if not keep_refused or not isinstance(sent, bytes):
                raise
            return self._refuse(sent, error.reason, source, _key_id(key, 0), error)
        self.submitted += len(batch)
        self.rejected += len(batch.rejected)
        stored = [self._pipeline.append(part) for part in batch.parts]
        if len(stored) == 1 and not batch.rejected:
            return Ack(stored[0], list, self._on_unawaited)
        done: asyncio.Future[Any] = asyncio.gather(*stored)
        if keep_refused and batch.rejected:
            done = self._run(self._store_rejected(done, _rejected_items(sent, batch, source, key), now))
        return Ack(done, lambda receipts: _in_order(receipts, batch), self._on_unawaited)

    def _decode(self, sent: bytes | list[Any], now: int, source: str | None) -> DecodedBatch:
        if isinstance(sent, bytes):
            return decode_batch(sent, now, source=source)
        return DecodedBatch.of(decode_mappings(sent, now, source=source))

    def replay(self, events: Sequence[Event]) -> asyncio.Future[list[Receipt]]:
        """Store validated events of a dead letter. The events count as submitted once more."""
        self.submitted += len(events)
        return self._pipeline.append(events)

    def count_rejected(self) -> None:
        """Count a dead letter that was replayed and rejected again."""
        self.submitted += 1
        self.rejected += 1

    def refuse(
        self, raw: bytes, reason: str, *, source: str | None = "python", key: str | None = None
    ) -> Ack[list[Receipt]]:
        """Store a body that could not be decoded as a dead letter. Counts as one item, submitted and rejected."""
        return self._refuse(raw, reason, source, key, None)

    def _refuse(
        self, raw: bytes, reason: str, source: str | None, key: str | None, error: InvalidEvent | None
    ) -> Ack[list[Receipt]]:
        self.submitted += 1
        self.rejected += 1
        done: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        if error is None:
            done.set_result([Receipt(None, None, "rejected", reason)])
        else:
            done.set_exception(error)
        items = [RejectedItem(reason=reason, raw=raw, source=source, key=key)]
        return Ack(self._run(self._store_rejected(done, items, self._clock.now_us())), list, self._on_unawaited)

    async def _store_rejected(self, done: asyncio.Future[_T], items: list[RejectedItem], now_us: int) -> _T:
        """Await `done`, then store `items` as dead letters. Stores no dead letter if the log failed."""
        try:
            receipts = await done
        except InvalidEvent:
            await self._dead_letters.keep(items, now_us)
            raise
        await self._dead_letters.keep(items, now_us)
        return receipts

    def _run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def settle(self) -> None:
        """Return when all dead letters are stored, or their storing has failed."""
        while self._storing:
            await asyncio.wait(set(self._storing))

    def _on_unawaited(self, error: BaseException) -> None:
        """Report to `on_error`, the program's log and `check` that a call without an await has failed."""
        self.failures = [*self.failures[1 - _MAX_FAILURES :], f"{type(error).__name__}: {error}"]
        _log.error("an event was not stored, and its call was not awaited: %s", error)
        if self._on_error is not None:
            self._on_error(error)


def _key_id(key: KeyIds, index: int) -> str | None:
    return key if key is None or isinstance(key, str) else key[index]


def _as_sent(items: Iterable[Any] | bytes | str) -> bytes | list[Any]:
    if isinstance(items, str):
        return items.encode("utf-8", "surrogatepass")
    return bytes(items) if isinstance(items, (bytes, bytearray, memoryview)) else list(items)


def _rejected_items(
    sent: bytes | list[Any], batch: DecodedBatch, source: str | None, key: KeyIds
) -> list[RejectedItem]:
    raws, shared = items_as_sent(sent) if isinstance(sent, bytes) else (list(map(_as_json, sent)), b"{}")
    if len(shared) > _MAX_SHARED and isinstance(sent, bytes):  # too long to be stored with each event
        if len(batch.rejected) == len(batch):
            return [RejectedItem(reason=batch.rejected[0].reason, raw=sent, source=source, key=_key_id(key, 0))]
        shared = b"{}"
    return [
        RejectedItem(
            reason=item.reason,
            raw=raws[index],
            shared=shared,
            message_id=item.message_id,
            source=source,
            key=_key_id(key, index),
        )
        for index, item in batch.rejected.items()
    ]


def _as_json(item: Any) -> bytes:
    """The bytes to store for a Python value that was not a valid event."""
    try:
        return msgspec.json.encode(item, enc_hook=str)
    except (TypeError, ValueError, RecursionError):  # keys that are not text, lone surrogates, a reference cycle
        return repr(item).encode("utf-8", "backslashreplace")


def _first(receipts: list[Receipt]) -> Receipt:
    return receipts[0]


def _in_order(receipts: list[list[Receipt]], batch: DecodedBatch) -> list[Receipt]:
    stored = itertools.chain.from_iterable(receipts)
    rejected = {
        index: Receipt(None, item.message_id, "rejected", item.reason) for index, item in batch.rejected.items()
    }
    return [rejected.get(index) or next(stored) for index in range(len(batch))]
