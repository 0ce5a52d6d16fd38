"""Health: the numbers by which an object is monitored; computed without reading events."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lakebed.histogram import COUNTS, SECONDS, Histogram
from lakebed.monitoring.parts import MonitoredParts

__all__ = ["Health", "LifetimeCounts", "health", "lifetime_counts"]


class LifetimeCounts:
    """Counts since this Python object was made; closing and opening it again does not reset them. They only grow.

    Attributes:
        stored, duplicate, rejected: clients' events by outcome; their sum is the number received.
        failed: events that the log could not store; the calls raised an error.
        groups: histogram of events per committed group.
        syncs: histogram of the seconds that making a group durable took.
        queries: histogram of seconds per query, failed queries included.
    """

    __slots__ = ("duplicate", "failed", "groups", "queries", "rejected", "stored", "syncs")

    def __init__(self) -> None:
        self.stored = self.duplicate = self.rejected = self.failed = 0
        self.groups = Histogram(COUNTS)
        self.syncs = Histogram(SECONDS)
        self.queries = Histogram(SECONDS)

    def add(self, other: LifetimeCounts) -> None:
        """Add the counts of `other`."""
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.rejected += other.rejected
        self.failed += other.failed
        self.groups.add(other.groups)
        self.syncs.add(other.syncs)
        self.queries.add(other.queries)


class Health(msgspec.Struct, frozen=True):
    """The health of an open object.

    Attributes:
        pending: events that wait for a commit.
        lag: by consumer of the log (the rollups, "archive" and others): number of events that it has not read yet.
        log_bytes: size of the sealed log files.
        tail_bytes: size of the events in memory that are not sealed yet.
        dead_letters: rejected events that were kept.
        problems: number of failures that no later success has resolved.
    """

    pending: int
    lag: Mapping[str, int]
    log_bytes: int
    tail_bytes: int
    dead_letters: int
    problems: int


def lifetime_counts(parts: MonitoredParts) -> LifetimeCounts:
    """The counts since the parts were opened. Works for closed parts, too."""
    counts = LifetimeCounts()
    counts.stored = parts.pipeline.next_seq - parts.opened_at_seq - parts.documents.committed
    counts.duplicate = parts.pipeline.duplicates
    counts.rejected = parts.ingest.rejected
    counts.failed = parts.pipeline.failed
    counts.groups.add(parts.pipeline.groups)
    counts.syncs.add(parts.pipeline.syncs)
    counts.queries.add(parts.queries.seconds)
    return counts


async def health(parts: MonitoredParts) -> Health:
    """The health of open parts. Raises StorageUnavailable if SQLite cannot be read."""
    checkpoints = await parts.storage.checkpoints()
    end = parts.pipeline.next_seq
    lag = {consumer: max(0, end - seq) for consumer, seq in checkpoints.items()}
    lag["archive"] = end - parts.maintenance.watermark
    return Health(
        pending=parts.pipeline.pending_events,
        lag=lag,
        log_bytes=parts.pipeline.sealed_bytes,
        tail_bytes=parts.pipeline.tail_bytes,
        dead_letters=parts.dead_letters.counts.waiting,
        problems=len(parts.pipeline.problems) + len(parts.maintenance.problems) + len(parts.ingest.failures),
    )
