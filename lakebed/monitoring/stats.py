"""Stats: the real-time counters of an object, from L0."""

from __future__ import annotations

import msgspec

from lakebed.tiers.counters.counters import Counters

__all__ = ["Stats", "stats"]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Real-time counters. The last minute and hour are sliding windows of receive time.

    All numbers are of events. Documents of the operator, such as cohorts and invoices, are in the log too, but none of
    them was received, stored or rejected. Only positions count them.

    Attributes:
        received: events since the object opened: `stored + duplicate + rejected`.
        last_minute: events stored in the last 60 seconds, with or without a name.
        last_hour: the same for 3,600 seconds.
        events_last_minute: the named ones, by name, most first.
        events_last_hour: the same for the last hour.
        active: people with an event in the last `active_ttl_s` seconds.
        totals: events ever stored, by name, most first.
        next_seq: the position that the next event or document takes in the log. Positions begin at 0.
        watermark: the position before which everything is in the archive.
        dead_letters: rejected events that were kept.
        dead_letters_dropped: dead letters that were ever dropped for newer ones.
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
