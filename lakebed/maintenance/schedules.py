"""Upkeep: the scheduled work, also on demand."""

from __future__ import annotations

from datetime import datetime, timedelta

from lakebed.assembled import Assembled
from lakebed.maintenance.maintenance import Archived, RolledUp
from lakebed.monitoring.check import Problem, check_up
from lakebed.monitoring.health import Health, LifetimeCounts, tallied, vitals_of
from lakebed.scheduling.schedule import every
from lakebed.scheduling.scheduler import JobRun
from lakebed.settings import Settings
from lakebed.tiers.archive.models import Compaction, Expiry, Garbage, Snapshot

__all__ = ["Upkeep"]


class Upkeep(Assembled):
    """What keeps an Analytics object in order."""

    settings: Settings

    @every.hour
    async def rollup(self) -> RolledUp:
        """Bring all rollups up to date and let the log go where every consumer has passed it. Idempotent."""
        return await self._up.maintenance.rollup()

    async def archive(self, older_than: timedelta | datetime | float | None = None) -> Archived:
        """Move events into Iceberg: all acknowledged so far, or those received before a time or an age in seconds."""
        return await self._up.maintenance.archive(older_than)

    async def compact(self) -> Compaction:
        """Merge small archive files of the same day. No answer changes."""
        return await self._up.archive.compact()

    async def expire(self, *, dry_run: bool = False) -> Expiry:
        """Expire old archive snapshots. `as_of` answers do not change; `snapshot=` ones may be gone."""
        return await self._up.archive.expire(dry_run=dry_run)

    async def collect_garbage(self, *, dry_run: bool = False) -> Garbage:
        """Delete archive files that no snapshot refers to."""
        return await self._up.archive.collect_garbage(dry_run=dry_run)

    async def snapshots(self) -> list[Snapshot]:
        """The archive's snapshots, oldest first."""
        return await self._up.archive.snapshots()

    async def tag(self, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot (the current one) and keep it from expiring."""
        await self._up.archive.tag(name, snapshot_id)

    async def untag(self, name: str) -> None:
        """Let a tagged snapshot expire in its turn."""
        await self._up.archive.untag(name)

    @every.day.at("3am")
    async def tidy(self) -> None:
        """The daily job: catch up, then expire snapshots and collect what they leave behind."""
        await self.rollup()
        if self._up.archive.exists():
            await self.expire()
            await self.collect_garbage()

    @every.Sunday.at("4am")
    async def settle(self) -> None:
        """The weekly job: archive what is older than the window, then merge small files."""
        await self.archive(older_than=self.settings.archive_window_s)
        if self._up.archive.exists():
            await self.compact()

    async def run_due(self) -> list[JobRun]:
        """Run what this object's schedules owe by now."""
        return await self._up.scheduler.run_due()

    @property
    def log_problems(self) -> dict[str, str]:
        """What failed in the log ("append", "seal") and has not succeeded since; empty when it is closed."""
        return {} if self._tiers is None or not self._tiers.ready else dict(self._tiers.pipeline.problems)

    def tally(self) -> LifetimeCounts:
        """What was done since this Python object was made: events, groups, syncs, questions. Also when it is closed."""
        tally = LifetimeCounts()
        tally.add(self._tally)
        if self._tiers is not None:
            tally.add(tallied(self._tiers))
        return tally

    async def vitals(self) -> Health:
        """How it is doing now, for monitoring. Reads no event."""
        return await vitals_of(self._up)

    async def check(self) -> list[Problem]:
        """What is not as promised, in any tier; empty when healthy."""
        return await check_up(self._up)
