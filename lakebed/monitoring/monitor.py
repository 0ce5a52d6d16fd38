"""Monitor: reads an object's totals, live snapshot, tiers, health and problems."""

from __future__ import annotations

from lakebed.monitoring.check import Problem, check
from lakebed.monitoring.health import Health, LifetimeCounts, health, lifetime_counts
from lakebed.monitoring.live_snapshot import LiveSnapshot, LiveSnapshots, Stats, stats
from lakebed.monitoring.parts import MonitoredParts
from lakebed.monitoring.tier_status import TierStatus, tier_status

__all__ = ["Monitor"]


class Monitor:
    """Reads the parts of one open object, and changes none."""

    def __init__(self, parts: MonitoredParts, live_snapshots: LiveSnapshots) -> None:
        self._parts = parts
        self._live_snapshots = live_snapshots

    def stats(self) -> Stats:
        """Events in the last minute and hour, active people and totals, from memory."""
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
            StorageUnavailable: the rollups cannot be read. If the archive does not answer, `archive.trouble` says so.
        """
        return await tier_status(self._parts)

    async def vitals(self) -> Health:
        """The object's health, for monitoring. Reads no event."""
        return await health(self._parts)

    async def check(self) -> list[Problem]:
        """All broken promises of any tier; empty if the object is healthy."""
        return await check(self._parts)

    def lifetime_counts(self) -> LifetimeCounts:
        """Counts of events, groups, syncs and queries since the object was opened, also if it was closed since."""
        return lifetime_counts(self._parts)
