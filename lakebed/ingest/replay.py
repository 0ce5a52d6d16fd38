"""Replays: dead letters into the log, each exactly once, wherever the process is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from lakebed.clock import Clock, to_us
from lakebed.concurrency import finish_despite_cancel
from lakebed.errors import InvalidEvent
from lakebed.events.decoding import Rejected, decode_dead_letter
from lakebed.events.event import Event, Receipt
from lakebed.ingest.ingest import Ingest
from lakebed.query.event_history import EventHistory
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetter, DeadLetters, Replaying

__all__ = ["Edit", "Replayed", "Replayer"]

Edit = Mapping[str, Any] | bytes | str | None
_AT_ONCE = 100  # letters; bounds the memory that they take


class Replayed(msgspec.Struct, frozen=True):
    """What became of one letter.

    Attributes:
        id: the letter's.
        status: "stored" and "duplicate": its event is durable, and the letter is gone; "rejected": it was refused again
            and stays; "missing": there is no such letter.
        message_id, seq: of its event, the first if it was a body of several.
        reason: why it was refused.
    """

    id: int
    status: Literal["stored", "duplicate", "rejected", "missing"]
    message_id: str | None = None
    seq: int | None = None
    reason: str | None = None


class Replayer:
    """Replays letters of one object, one run at a time.

    Before events go to the log, their message ids and the log's end are noted durably. A letter goes when its event is
    durable. After a crash in between `recover` looks for those message ids in the log: the 24 h for which they are
    remembered otherwise may be over by then.
    """

    def __init__(
        self, letters: DeadLetters, intake: Ingest, pipeline: Pipeline, history: EventHistory, clock: Clock
    ) -> None:
        self._letters = letters
        self._intake = intake
        self._pipeline = pipeline
        self._history = history
        self._clock = clock
        self._turn = asyncio.Lock()
        self._begun: Replaying | None = None  # what may be in the log, although nobody acknowledged it

    async def recover(self) -> None:
        """Finish what was replayed when the process was killed. For opening: before anything else is replayed."""
        self._begun = await self._letters.begun()
        await self._finish_begun()
        if self._begun is not None:  # nothing is under way, so what is not in the log now will never be
            self._begun = None
            await self._letters.end([], {}, self._clock.now_us(), None)

    async def _finish_begun(self) -> None:
        """Let those letters go whose events are in the log by now."""
        begun = self._begun
        if begun is None:
            return
        wanted = {message_id for ids in begun.letters.values() for message_id in ids}
        found: set[str] = set()
        if begun.seq < self._pipeline.next_seq:
            async for table in self._history.read(begun.seq, self._pipeline.next_seq, frozenset()):
                found |= wanted.intersection(table["message_id"].to_pylist())
        await self._end([letter for letter, ids in begun.letters.items() if found.issuperset(ids)], {})

    async def replay(self, ids: Sequence[int] | None, edit: Edit) -> list[Replayed]:
        """Replay these letters, or all that wait; gives what became of each, in order.

        Raises:
            ValueError: a mended text was given for several letters.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: the rest still waits. Call it again.
        """
        async with self._turn:
            await self._finish_begun()
            chosen = list(dict.fromkeys(ids)) if ids is not None else await self._letters.ids()
            if isinstance(edit, (bytes, str)) and len(chosen) != 1:
                raise ValueError(f"one text cannot mend {len(chosen)} letters: name one, or give a mapping of changes")
            outcomes: list[Replayed] = []
            for start in range(0, len(chosen), _AT_ONCE):
                # Not to be left halfway: letters whose events are stored would wait for another replay.
                outcomes += await finish_despite_cancel(self._some(chosen[start : start + _AT_ONCE], edit))
            return outcomes

    async def purge(self, ids: Sequence[int] | None, before_us: int | None) -> int:
        """Delete letters, but not while they are replayed."""
        async with self._turn:
            return await self._letters.purge(ids, before_us)

    async def _some(self, ids: Sequence[int], edit: Edit) -> list[Replayed]:
        outcomes = {letter: Replayed(letter, "missing") for letter in ids}
        ready: dict[int, list[Event]] = {}
        for letter in await self._letters.get(ids):
            try:
                ready[letter.id] = _events(letter, edit)
            except InvalidEvent as error:
                self._intake.count_rejected()
                outcomes[letter.id] = Replayed(letter.id, "rejected", letter.message_id, None, error.reason)
        failures = await self._store(ready, outcomes) if ready else []
        refused = {one.id: one.reason or "" for one in outcomes.values() if one.status == "rejected"}
        durable = [one.id for one in outcomes.values() if one.status in ("stored", "duplicate")]
        await self._end(durable, refused)
        if failures:
            raise failures[0]
        return list(outcomes.values())

    async def _end(self, durable: Sequence[int], refused: Mapping[int, str]) -> None:
        begun = self._begun
        left = {} if begun is None else {one: begun.letters[one] for one in begun.letters.keys() - set(durable)}
        still = Replaying(begun.seq, left) if begun is not None and left else None
        await self._letters.end(durable, refused, self._clock.now_us(), still)
        self._begun = still

    async def _store(self, ready: dict[int, list[Event]], outcomes: dict[int, Replayed]) -> list[BaseException]:
        before = self._begun or Replaying(self._pipeline.next_seq, {})
        named = {letter: [event.message_id or "" for event in events] for letter, events in ready.items()}
        self._begun = Replaying(before.seq, before.letters | named)
        await self._letters.begin(self._begun)
        stored = [self._intake.again(events) for events in ready.values()]
        failures: list[BaseException] = []
        for letter, done in zip(ready, await asyncio.gather(*stored, return_exceptions=True), strict=True):
            if isinstance(done, BaseException):
                failures.append(done)
                del outcomes[letter]
            else:
                outcomes[letter] = _outcome(letter, done)
        return failures


def _outcome(letter: int, receipts: Sequence[Receipt]) -> Replayed:
    fresh = any(one.status == "stored" for one in receipts)
    return Replayed(letter, "stored" if fresh else "duplicate", receipts[0].message_id, receipts[0].seq)


def _events(letter: DeadLetter, edit: Edit) -> list[Event]:
    """The events of a letter, each with a message id that is the same at each try.

    Raises:
        InvalidEvent: one of them cannot be taken: then none is.
    """
    at_us = to_us(letter.received_at)
    items = decode_dead_letter(_mended(letter, edit), letter.shared, at_us, source=letter.source)
    refused = next((item for item in items if isinstance(item, Rejected)), None)
    if refused is not None or not items:
        raise InvalidEvent("there is no event in it" if refused is None else refused.reason)
    events = [item for item in items if isinstance(item, Event)]
    for number, event in enumerate(events):
        if event.message_id is None:
            event.message_id = letter.replay_id if len(events) == 1 else f"{letter.replay_id}-{number}"
        if event.timestamp is None:  # it happened when it was received first, not when it was mended
            event.timestamp = at_us
    return events


def _mended(letter: DeadLetter, edit: Edit) -> bytes:
    if isinstance(edit, str):
        return edit.encode("utf-8", "surrogatepass")
    if isinstance(edit, bytes):
        return edit
    if letter.is_cut:
        kept = f"{len(letter.raw)} of {letter.size} bytes"
        raise InvalidEvent(f"only the first {kept} were kept: replay it with all of its text")
    if edit is None:
        return letter.raw
    try:
        letter.raw.decode()
        found = msgspec.json.decode(letter.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"it is no JSON to change something of: replay it with all of its text ({error})") from None
    if not isinstance(found, dict):
        raise InvalidEvent("it is no JSON object to change something of: replay it with all of its text")
    try:
        return msgspec.json.encode(_merged(found, edit))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(f"the change cannot be written as JSON: {error}") from None


def _merged(target: Any, patch: Any) -> Any:
    """JSON Merge Patch, RFC 7396."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
