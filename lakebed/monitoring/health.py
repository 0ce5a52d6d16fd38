"""Vitals: the numbers by which an object is watched, from memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from lakebed.histogram import COUNTS, SECONDS, Histogram

if TYPE_CHECKING:
    from lakebed.components import Components

__all__ = ["Health", "LifetimeCounts", "tallied", "vitals_of"]


class LifetimeCounts:
    """What was done since this Python object was made, through every opening. Only grows.

    Attributes:
        stored, duplicate, rejected: clients' events, by what became of them; together they were received.
        failed: events that the log could not take; their senders know.
        groups: events of each group that was committed.
        syncs: seconds that making a group durable took.
        queries: seconds that each question took, failed ones too.
    """

    __slots__ = ("duplicate", "failed", "groups", "queries", "rejected", "stored", "syncs")

    def __init__(self) -> None:
        self.stored = self.duplicate = self.rejected = self.failed = 0
        self.groups = Histogram(COUNTS)
        self.syncs = Histogram(SECONDS)
        self.queries = Histogram(SECONDS)

    def add(self, other: LifetimeCounts) -> None:
        """Add all that `other` says."""
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.rejected += other.rejected
        self.failed += other.failed
        self.groups.add(other.groups)
        self.syncs.add(other.syncs)
        self.queries.add(other.queries)


class Health(msgspec.Struct, frozen=True):
    """How an open object is doing.

    Attributes:
        pending: events that wait for their commit.
        lag: events that each consumer of the log has yet to read: the rollups and "archive".
        log_bytes: of sealed log files.
        tail_bytes: of events in memory that are not sealed yet.
        dead_letters: refused events that wait.
        problems: what failed and has not succeeded since.
    """

    pending: int
    lag: Mapping[str, int]
    log_bytes: int
    tail_bytes: int
    dead_letters: int
    problems: int


def tallied(tiers: Components) -> LifetimeCounts:
    """What one opening did so far. Also of tiers that are closed, or that were never ready."""
    tally = LifetimeCounts()
    parts = vars(tiers)
    if "pipeline" in parts:
        pipeline = tiers.pipeline
        own = tiers.operator_rows.committed
        tally.stored = pipeline.next_seq - tiers.opened_at_seq - own if "archive" in parts else 0
        tally.duplicate = pipeline.duplicates
        tally.failed = pipeline.failed
        tally.groups.add(pipeline.groups)
        tally.syncs.add(pipeline.syncs)
    if "queries" in parts:
        tally.queries.add(tiers.queries.seconds)
    if "intake" in parts:
        tally.rejected = tiers.intake.rejected
    return tally


async def vitals_of(tiers: Components) -> Health:
    """The vitals of open tiers. Raises StorageUnavailable."""
    checkpoints = await tiers.storage.checkpoints()
    end = tiers.pipeline.next_seq
    lag = {consumer: max(0, end - seq) for consumer, seq in checkpoints.items()}
    lag["archive"] = end - tiers.maintenance.watermark
    return Health(
        pending=tiers.pipeline.pending_events,
        lag=lag,
        log_bytes=tiers.pipeline.sealed_bytes,
        tail_bytes=tiers.pipeline.tail_bytes,
        dead_letters=tiers.letters.books.waiting,
        problems=len(tiers.pipeline.problems) + len(tiers.maintenance.problems) + len(tiers.intake.failures),
    )
