"""DeadLetterQueue: rejected events that were kept. They can be listed, mended, replayed, or purged.

A replay stores each event in the log exactly once, also if the process is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from lakebed.clock import Clock, Moment, parse_moment, to_us
from lakebed.concurrency import finish_despite_cancel
from lakebed.errors import InvalidEvent, UnknownDeadLetter
from lakebed.events.decoding import Rejected, decode_dead_letter
from lakebed.events.event import Event, Receipt
from lakebed.ingest.ingest import Ingest
from lakebed.query.event_history import EventHistory
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetter, DeadLetters, UnfinishedReplay

__all__ = ["DeadLetterQueue", "Replayed", "Replayer"]

Edit = Mapping[str, Any] | bytes | str | None
_CHUNK = 100  # dead letters that are replayed at a time: bounds memory


class Replayed(msgspec.Struct, frozen=True):
    """The outcome of the replay of one dead letter.

    Attributes:
        id: the id of the dead letter.
        status: "stored" and "duplicate": the event is durable, and the dead letter is deleted; "rejected": the dead
            letter was rejected again and stays; "missing": there is no such dead letter.
        message_id, seq: the id and position of the event; of the first event if the dead letter has several.
        reason: the reason of a rejection.
    """

    id: int
    status: Literal["stored", "duplicate", "rejected", "missing"]
    message_id: str | None = None
    seq: int | None = None
    reason: str | None = None


class Replayer:
    """Replays dead letters of one object, one run at a time.

    Before events go to the log, their message ids and the log's end are recorded durably. A dead letter is deleted when
    its event is durable. After a crash in between, `recover` looks for the recorded message ids in the log, because
    deduplication forgets message ids after 24 h.
    """

    def __init__(
        self, dead_letters: DeadLetters, ingest: Ingest, pipeline: Pipeline, history: EventHistory, clock: Clock
    ) -> None:
        self._dead_letters = dead_letters
        self._ingest = ingest
        self._pipeline = pipeline
        self._history = history
        self._clock = clock
        self._lock = asyncio.Lock()
        self._unfinished: UnfinishedReplay | None = None  # events that may be in the log, unacknowledged

    async def recover(self) -> None:
        """Finish a replay during which the process was killed. Call this at opening, before any other replay."""
        self._unfinished = await self._dead_letters.unfinished_replay()
        await self._delete_stored()
        if self._unfinished is not None:  # no commit is running, so an event that is not in the log now will never be
            self._unfinished = None
            await self._dead_letters.finish_replay([], {}, self._clock.now_us(), None)

    async def _delete_stored(self) -> None:
        """Delete those dead letters of the unfinished replay whose events are in the log now."""
        unfinished = self._unfinished
        if unfinished is None:
            return
        message_ids = {message_id for ids in unfinished.letters.values() for message_id in ids}
        stored: set[str] = set()
        if unfinished.seq < self._pipeline.next_seq:
            async for table in self._history.read(unfinished.seq, self._pipeline.next_seq, frozenset()):
                stored |= message_ids.intersection(table["message_id"].to_pylist())
        await self._finish([number for number, ids in unfinished.letters.items() if stored.issuperset(ids)], {})

    async def replay(self, ids: Sequence[int] | None, edit: Edit) -> list[Replayed]:
        """Replay the dead letters with these ids, or all if None. Returns the outcome of each dead letter, in order.

        Raises:
            ValueError: `edit` is text or bytes, but the number of dead letters is not one.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: unreplayed dead letters are kept. Call again.
        """
        async with self._lock:
            await self._delete_stored()
            numbers = list(dict.fromkeys(ids)) if ids is not None else await self._dead_letters.ids()
            if isinstance(edit, (bytes, str)) and len(numbers) != 1:
                raise ValueError(
                    f"one text cannot replace {len(numbers)} dead letters: name one id, or give a mapping of changes"
                )
            outcomes: list[Replayed] = []
            for start in range(0, len(numbers), _CHUNK):
                # Each chunk is finished, else dead letters whose events are stored would stay until another replay.
                outcomes += await finish_despite_cancel(self._replay_chunk(numbers[start : start + _CHUNK], edit))
            return outcomes

    async def purge(self, ids: Sequence[int] | None, before_us: int | None) -> int:
        """Delete dead letters as `DeadLetters.purge` does, but wait for a running replay first."""
        async with self._lock:
            return await self._dead_letters.purge(ids, before_us)

    async def _replay_chunk(self, ids: Sequence[int], edit: Edit) -> list[Replayed]:
        outcomes = {number: Replayed(number, "missing") for number in ids}
        ready: dict[int, list[Event]] = {}
        for letter in await self._dead_letters.get(ids):
            try:
                ready[letter.id] = _events(letter, edit)
            except InvalidEvent as error:
                self._ingest.count_rejected()
                outcomes[letter.id] = Replayed(letter.id, "rejected", letter.message_id, None, error.reason)
        failures = await self._store(ready, outcomes) if ready else []
        rejected = {each.id: each.reason or "" for each in outcomes.values() if each.status == "rejected"}
        durable = [each.id for each in outcomes.values() if each.status in ("stored", "duplicate")]
        await self._finish(durable, rejected)
        if failures:
            raise failures[0]
        return list(outcomes.values())

    async def _finish(self, durable: Sequence[int], rejected: Mapping[int, str]) -> None:
        remaining = None
        if self._unfinished is not None:
            deleted = set(durable)
            letters = {number: ids for number, ids in self._unfinished.letters.items() if number not in deleted}
            remaining = UnfinishedReplay(self._unfinished.seq, letters) if letters else None
        await self._dead_letters.finish_replay(durable, rejected, self._clock.now_us(), remaining)
        self._unfinished = remaining

    async def _store(self, ready: dict[int, list[Event]], outcomes: dict[int, Replayed]) -> list[BaseException]:
        before = self._unfinished or UnfinishedReplay(self._pipeline.next_seq, {})
        message_ids = {number: [event.message_id or "" for event in events] for number, events in ready.items()}
        self._unfinished = UnfinishedReplay(before.seq, before.letters | message_ids)
        await self._dead_letters.start_replay(self._unfinished)
        stored = [self._ingest.replay(events) for events in ready.values()]
        failures: list[BaseException] = []
        for number, done in zip(ready, await asyncio.gather(*stored, return_exceptions=True), strict=True):
            if isinstance(done, BaseException):
                failures.append(done)
                del outcomes[number]
            else:
                outcomes[number] = _outcome(number, done)
        return failures


def _outcome(number: int, receipts: Sequence[Receipt]) -> Replayed:
    is_new = any(receipt.status == "stored" for receipt in receipts)
    return Replayed(number, "stored" if is_new else "duplicate", receipts[0].message_id, receipts[0].seq)


def _events(letter: DeadLetter, edit: Edit) -> list[Event]:
    """The events of a dead letter. Each event gets the same message id at every try.

    Raises:
        InvalidEvent: an event is invalid, or there is none; then no event of the dead letter is stored.
    """
    received_us = to_us(letter.received_at)
    items = decode_dead_letter(_edited(letter, edit), letter.shared, received_us, source=letter.source)
    rejected = next((item for item in items if isinstance(item, Rejected)), None)
    if rejected is not None or not items:
        raise InvalidEvent("there is no event in it" if rejected is None else rejected.reason)
    events = [item for item in items if isinstance(item, Event)]
    for index, event in enumerate(events):
        if event.message_id is None:
            event.message_id = letter.replay_id if len(events) == 1 else f"{letter.replay_id}-{index}"
        if event.timestamp is None:  # the event happened when it was first received, not when it was corrected
            event.timestamp = received_us
    return events


def _edited(letter: DeadLetter, edit: Edit) -> bytes:
    if isinstance(edit, str):
        return edit.encode("utf-8", "surrogatepass")
    if isinstance(edit, bytes):
        return edit
    if letter.is_cut:
        stored = f"{len(letter.raw)} of {letter.size} bytes"
        raise InvalidEvent(f"only the first {stored} are stored: replay it with its complete text")
    if edit is None:
        return letter.raw
    try:
        letter.raw.decode()
        event = msgspec.json.decode(letter.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(
            f"it is not JSON, so it cannot be changed: replay it with a complete text ({error})"
        ) from None
    if not isinstance(event, dict):
        raise InvalidEvent("it is not a JSON object, so it cannot be changed: replay it with a complete text")
    try:
        return msgspec.json.encode(_merged(event, edit))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the change cannot be written as JSON: {error}") from None


def _merged(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied, by JSON Merge Patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


MAX_LISTED = 1_000


class DeadLetterQueue:
    """An object's dead letters. HTTP keeps every rejected event; `batch` keeps rejected events with `keep_refused`."""

    def __init__(self, store: DeadLetters, replayer: Replayer) -> None:
        self._store = store
        self._replayer = replayer

    async def dead_letters(
        self, *, limit: int = 100, before: int | None = None, reason: str | None = None
    ) -> list[DeadLetter]:
        """Dead letters, newest first.

        Args:
            limit: maximum number, from 1 to 1,000.
            before: only dead letters with a smaller id: the last id of a page gives the next page.
            reason: only dead letters whose reason contains this text.

        Raises:
            ValueError: `limit` is not from 1 to 1,000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"`limit` must be from 1 to {MAX_LISTED}, not {limit}")
        return await self._store.newest(limit, before, reason)

    async def dead_letter(self, id: int) -> DeadLetter:  # noqa: A002 - the name of the field
        """One dead letter, by its id. Raises UnknownDeadLetter if it never existed, was replayed, purged or dropped."""
        rows = await self._store.get([id])
        if not rows:
            raise UnknownDeadLetter(f"There is no dead letter {id}", hint="dead_letters() lists them", id=id)
        return rows[0]

    async def replay(self, ids: Sequence[int] | None = None, edit: Edit = None) -> list[Replayed]:
        """Store the events of dead letters (by default all), unchanged or mended. Returns the outcome of each.

        Each event is stored exactly once, however often this is called, and wherever the process is killed. An event
        without a `message_id` or `timestamp` gets the dead letter's `replay_id` or `received_at`. A dead letter is
        deleted when its event is durable; a dead letter that is rejected again stays, with the new reason.

        Args:
            ids: the ids of the dead letters to replay; None means all.
            edit: a mapping is merged into each event (RFC 7396: None removes a field; names are Segment's); text or
                bytes replace the event of the one dead letter in `ids`.

        Raises:
            ValueError: `edit` is text or bytes, and the number of dead letters is not one.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: events that were not stored are still dead
                letters. Call `replay` again.
        """
        return await self._replayer.replay(ids, edit)

    async def purge(self, ids: Sequence[int] | None = None, *, before: Moment | None = None) -> int:
        """Delete the dead letters with these ids, or all that were rejected before a moment. Returns their number.

        Raises:
            ValueError: neither `ids` nor `before` is given, or both, or `before` is a naive datetime.
        """
        if (ids is None) == (before is None):
            raise ValueError("purge() needs exactly one of `ids` and `before`")
        return await self._replayer.purge(ids, None if before is None else parse_moment(before))
