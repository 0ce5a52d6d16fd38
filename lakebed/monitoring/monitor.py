"""Monitor: what an object says about itself: totals, live snapshot, tiers, health, problems."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping

import msgspec

from lakebed.errors import LakebedError
from lakebed.histogram import COUNTS, SECONDS, Histogram
from lakebed.monitoring.live_snapshot import LiveSnapshot, LiveSnapshots, Stats, stats
from lakebed.monitoring.tier_status import MonitoredParts, TierStatus, tier_status
from lakebed.tiers.storage.schedule_runs import ScheduleRuns

__all__ = ["Health", "LifetimeCounts", "Monitor", "Problem"]


class LifetimeCounts:
    """Counts since this Python object was made, through every opening. They only grow.

    Attributes:
        stored, duplicate, rejected: clients' events by outcome; their sum is the number received.
        failed: events that the log could not store; their callers got an error.
        groups: events per committed group.
        syncs: seconds per group to make it durable.
        queries: seconds per query, failed ones included.
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
        lag: events that each consumer of the log has not read yet, by consumer: the rollups and "archive".
        log_bytes: of sealed log files.
        tail_bytes: of events in memory that are not sealed yet.
        dead_letters: rejected events that were kept.
        problems: failures without a success since.
    """

    pending: int
    lag: Mapping[str, int]
    log_bytes: int
    tail_bytes: int
    dead_letters: int
    problems: int


def lifetime_counts(parts: MonitoredParts) -> LifetimeCounts:
    """The counts of one opening so far. Also of parts that are closed."""
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
    """The vitals of open parts. Raises StorageUnavailable."""
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


class Problem(msgspec.Struct, frozen=True):
    """A broken promise.

    Attributes:
        where: "log", "storage", "dead letters", "rollups", "identity", "archive", "schedule", "tracking" or "counters".
        message: the problem with its facts and, if there is one, the next step.
    """

    where: str
    message: str


async def check(parts: MonitoredParts) -> list[Problem]:
    """Check every tier. Cheap enough after each test; reads no event twice. A tier that cannot be read is a problem."""
    await parts.pipeline.flush()
    problems = [
        Problem("tracking", f"an event was not stored, and its call was not awaited: {m}")
        for m in parts.ingest.failures
    ]
    problems += [Problem("log", f"{what}: {message}") for what, message in parts.pipeline.problems.items()]
    problems += _tracking_counts(parts)
    problems += await _problems_of("storage", parts.storage.check())
    problems += await _problems_of("dead letters", parts.dead_letters.check())
    problems += _problems("archive", parts.maintenance.problems.values())
    problems += await _problems_of("rollups", _caught_up(parts))
    problems += await _problems_of("rollups", parts.rollups.check(parts.pipeline.next_seq))
    problems += await _problems_of("identity", parts.identity.check(parts.pipeline.next_seq))
    problems += await _problems_of("archive", _archive(parts))
    problems += await _problems_of("schedule", _schedule(parts))
    return list(dict.fromkeys(problems))  # a damaged storage.db gives the same error to each check


async def _caught_up(parts: MonitoredParts) -> list[str]:
    await parts.catch_up.rollup()
    return []


async def _schedule(parts: MonitoredParts) -> list[str]:
    failing = await ScheduleRuns(parts.storage).failing() | parts.scheduler.failures
    return [f"{job} failed: {error}" for job, error in failing.items()]


async def _archive(parts: MonitoredParts) -> list[str]:
    messages = await parts.archive.check() if parts.archive.exists() else []
    start, end = parts.pipeline.start_seq, parts.pipeline.next_seq
    try:
        watermark = await parts.archive.watermark() if parts.archive.exists() else 0
    except LakebedError as error:  # the watermark is unknown; the messages above mostly have the cause
        return messages or [str(error)]
    if watermark < start:
        messages.append(f"events {watermark} to {start} are in neither log nor archive")
    if watermark > end:
        messages.append(f"its watermark {watermark} lies past the log's end {end}")
    return messages


async def _problems_of(where: str, check: Awaitable[Iterable[str]]) -> list[Problem]:
    try:
        return _problems(where, await check)
    except LakebedError as error:
        return [Problem(where, str(error))]


def _problems(where: str, messages: Iterable[str]) -> list[Problem]:
    return [Problem(where, message) for message in messages]


def _tracking_counts(parts: MonitoredParts) -> list[Problem]:
    """Received = stored + duplicate + rejected, for the events of this opening."""
    ingest, pipeline = parts.ingest, parts.pipeline
    stored = pipeline.next_seq - parts.opened_at_seq
    if ingest.received == stored + pipeline.duplicates + ingest.rejected:
        return []
    message = (
        f"{ingest.received} received are not {stored} stored + {pipeline.duplicates} duplicate"
        f" + {ingest.rejected} rejected"
    )
    return [Problem("tracking", message)]


class Monitor:
    """Reads the parts of one open object, and changes none."""

    def __init__(self, parts: MonitoredParts, live_snapshots: LiveSnapshots) -> None:
        self._parts = parts
        self._live_snapshots = live_snapshots

    def stats(self) -> Stats:
        """Events in the last minute and hour, active people, totals. Answered from memory."""
        parts = self._parts
        documents = parts.documents.committed
        return stats(
            parts.counters,
            received=parts.ingest.received - documents,
            stored=parts.pipeline.next_seq - parts.opened_at_seq - documents,
            duplicate=parts.pipeline.duplicates,
            rejected=parts.ingest.rejected,
            next_seq=parts.pipeline.next_seq,
            watermark=parts.maintenance.watermark,
            dead_letters=parts.dead_letters.counts.waiting,
            dead_letters_dropped=parts.dead_letters.counts.dropped,
            events=parts.pipeline.next_seq - len(parts.documents.seqs),
        )

    async def pulse(self) -> LiveSnapshot:
        """The live snapshot, small enough to be sent every second: counts by second and minute, the newest events."""
        return await self._live_snapshots.read(self.stats())

    async def tiers(self) -> TierStatus:
        """The contents of each tier, the position of each consumer of the log, and the disk.

        Raises:
            StorageUnavailable: the rollups cannot be read. An archive that does not answer is reported in its place.
        """
        return await tier_status(self._parts)

    async def vitals(self) -> Health:
        """The object's health, for monitoring. Reads no event."""
        return await health(self._parts)

    async def check(self) -> list[Problem]:
        """All that is not as promised, in any tier; empty when healthy."""
        return await check(self._parts)

    def lifetime_counts(self) -> LifetimeCounts:
        """The counts of this opening; also after its parts were closed."""
        return lifetime_counts(self._parts)
