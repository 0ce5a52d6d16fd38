"""LiveSnapshot: an object's activity at this moment, small enough to be sent every second. Stats: its counters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime

import msgspec

from lakebed.clock import HOUR_S, Clock, from_us
from lakebed.events.documents import DocumentPositions, without_documents
from lakebed.ingest.live_counters import ALL_1H, ALL_1M
from lakebed.query.event_history import EventHistory
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["LiveSnapshot", "LiveSnapshots", "Stats", "stats"]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Real-time counters. The last minute and hour are sliding windows of receive time.

    All numbers count events. Documents of the operator, such as cohorts and invoices, are in the log, too, but do not
    count as received, stored or rejected. Only positions include them.

    Attributes:
        received: events since the object opened: `stored + duplicate + rejected`.
        last_minute: events stored in the last 60 seconds, with or without a name.
        last_hour: events stored in the last 3,600 seconds, with or without a name.
        events_last_minute: number of events in the last minute by name, most first.
        events_last_hour: number of events in the last hour by name, most first.
        active: people with an event in the last `active_ttl_s` seconds.
        totals: number of events ever stored by name, most first.
        next_seq: the position that the next event or document takes in the log. Positions begin at 0.
        watermark: the position before which everything is in the archive.
        dead_letters: rejected events that were kept.
        dead_letters_dropped: number of dead letters ever dropped to make room for newer ones.
        events: number of events ever stored: `next_seq` without the operator's documents.
    """

    received: int
    stored: int
    duplicate: int
    rejected: int
    last_minute: int
    last_hour: int
    events_last_minute: dict[str, int]
    events_last_hour: dict[str, int]
    active: int
    totals: dict[str, int]
    next_seq: int
    watermark: int
    dead_letters: int = 0
    dead_letters_dropped: int = 0
    events: int = 0


def stats(
    counters: Counters,
    *,
    received: int,
    stored: int,
    duplicate: int,
    rejected: int,
    next_seq: int,
    watermark: int,
    dead_letters: int = 0,
    dead_letters_dropped: int = 0,
    events: int = 0,
) -> Stats:
    """The stats of this moment, from the live counters and the given numbers."""
    return Stats(
        received=received,
        stored=stored,
        duplicate=duplicate,
        rejected=rejected,
        last_minute=int(counters.get("all_events_1m")),
        last_hour=int(counters.get("all_events_1h")),
        events_last_minute=_by_name(counters, "events_1m:"),
        events_last_hour=_by_name(counters, "events_1h:"),
        active=counters.count("active:*"),
        totals=_by_name(counters, "events:"),
        next_seq=next_seq,
        watermark=watermark,
        dead_letters=dead_letters,
        dead_letters_dropped=dead_letters_dropped,
        events=events,
    )


def _by_name(counters: Counters, prefix: str) -> dict[str, int]:
    rows = counters.top(f"{prefix}*", len(counters))
    return {key.removeprefix(prefix): int(count) for key, count in rows if count}


_NEWEST = 12
_TOP = 10
_LONGEST_ID = 100
_COLUMNS = ("seq", "type", "event", "user_id", "anonymous_id", "timestamp", "received_at")


class Newest(msgspec.Struct, frozen=True):
    """One of the newest events, without its properties.

    Attributes:
        person: `user_id`, or if there is none `anonymous_id`; cut to 100 characters.
    """

    seq: int
    type: str
    event: str | None
    person: str | None
    timestamp: datetime
    received_at: datetime


class LiveSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The activity of an object at one moment. The last minute and hour are sliding windows of receive time.

    A snapshot with `at` and `name` only describes an object that does not exist yet.

    Attributes:
        at: moment of the snapshot.
        name: name of the object.
        received, stored, duplicate, rejected, last_minute, last_hour, active, next_seq, watermark, events: see `Stats`.
        active_s: how long after an event its person is active (the setting `active_ttl_s`).
        seconds: `last_minute` by second, oldest first, 60 numbers.
        minutes: `last_hour` by minute, oldest first, 60 numbers.
        names: number of event names in the last hour.
        top_hour: the most frequent names of the last hour, at most 10, as (name, events), most first.
        top_ever: the most frequent names of all events ever stored, at most 10, as (name, events), most first.
        newest: the newest events that are still in the log, at most 12, newest first.
    """

    at: datetime
    name: str
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    last_minute: int = 0
    last_hour: int = 0
    active: int = 0
    active_s: float = 0
    next_seq: int = 0
    watermark: int = 0
    seconds: Sequence[int] = (0,) * 60
    minutes: Sequence[int] = (0,) * 60
    names: int = 0
    top_hour: Sequence[tuple[str, int]] = ()
    top_ever: Sequence[tuple[str, int]] = ()
    newest: Sequence[Newest] = ()
    events: int = 0


class LiveSnapshots:
    """Reads the live snapshots of one object. Keeps the newest events, so each read gets only events after those.

    Args:
        name: name of the object.
        counters: L0, fed by `LiveCounters`.
        pipeline: L1, for the start of the log.
        history: reads the newest events.
        active_s: the setting `active_ttl_s`.
        clock: gives the time of a snapshot.
        documents: positions that hold no event.
    """

    def __init__(
        self,
        name: str,
        counters: Counters,
        pipeline: Pipeline,
        history: EventHistory,
        active_s: float,
        clock: Clock,
        documents: DocumentPositions,
    ) -> None:
        self._name = name
        self._counters = counters
        self._pipeline = pipeline
        self._history = history
        self._active_s = active_s
        self._clock = clock
        self._documents = documents
        self._newest: deque[Newest] = deque(maxlen=_NEWEST)
        self._seen = 0  # the seq after the last event that was read
        self._reading = asyncio.Lock()  # protects `_newest` and `_seen`

    async def read(self, stats: Stats) -> LiveSnapshot:
        """The snapshot of this moment. `stats` gives the totals, and the positions of log and archive."""
        newest = await self._read_newest()
        counters = self._counters
        return LiveSnapshot(
            at=from_us(self._clock.now_us()),
            name=self._name,
            received=stats.received,
            stored=stats.stored,
            duplicate=stats.duplicate,
            rejected=stats.rejected,
            last_minute=stats.last_minute,
            last_hour=stats.last_hour,
            active=stats.active,
            active_s=self._active_s,
            next_seq=stats.next_seq,
            watermark=stats.watermark,
            seconds=[int(count) for count in counters.spread(ALL_1M, 60.0, 60)],
            minutes=[int(count) for count in counters.spread(ALL_1H, HOUR_S, 60)],
            names=len(stats.events_last_hour),
            top_hour=list(stats.events_last_hour.items())[:_TOP],
            top_ever=list(stats.totals.items())[:_TOP],
            newest=newest,
            events=stats.events,
        )

    async def _read_newest(self) -> list[Newest]:
        async with self._reading:
            end = self._pipeline.next_seq
            # Never from the archive: it may be slow or down, and it does not have the newest events. The tail in memory
            # has them, except for a moment after a segment was sealed.
            first = self._documents.before_last_events(_NEWEST, end)
            start = max(self._seen, first, self._pipeline.start_seq)
            if start < end:
                async for table in self._history.read(start, end, frozenset()):
                    events = without_documents(table)
                    self._newest.extendleft(map(_newest, events.select(_COLUMNS).to_pylist()))
                self._seen = end
            return list(self._newest)


def _newest(row: dict[str, object]) -> Newest:
    person = row.pop("user_id") or row["anonymous_id"]
    del row["anonymous_id"]
    row["person"] = str(person)[:_LONGEST_ID] if person else None
    return msgspec.convert(row, Newest)
