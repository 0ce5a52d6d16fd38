"""Maintenance: the scheduled jobs that move events down the tiers and delete log files. Callable at any time.

Every job reads from the stores what remains to be done, so a second run, or one after a crash, does nothing twice.
CatchUp brings the consumers from which answers are read (rollups and identity) up to the end of the log.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import msgspec
import pyarrow as pa

from lakebed.clock import SECOND_US, Clock, to_us
from lakebed.errors import ArchiveConflict, LakebedError
from lakebed.identity.identity import Identity
from lakebed.ingest.live_counters import RECENT_S, LiveCounters
from lakebed.query.event_history import EventHistory
from lakebed.rollups.rollups import Rollups
from lakebed.settings import Settings
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.storage import Storage

__all__ = ["ARCHIVED", "TOTALS", "CatchUp", "Maintenance", "Totals"]


class CatchUp:
    """Brings rollups and identity up to date before a read: an answer has every event acknowledged before the call."""

    def __init__(
        self, pipeline: Pipeline, rollups: Rollups, identity: Identity, settings: Settings, clock: Clock
    ) -> None:
        self._pipeline = pipeline
        self._rollups = rollups
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._last: dict[str | None, tuple[float, int]] = {}  # by rollup: time of the last catch-up, and its seq

    async def rollup(self, name: str | None = None, max_staleness: float | None = None) -> int:
        """Bring one rollup (None: all) up to the last acknowledged event. Returns the seq before which it is complete.

        Identity is brought up to date, too, if `name` is None or the rollup counts people.

        Args:
            max_staleness: seconds. If the last catch-up with this `name` is not older, only its seq is returned.
        """
        now = self._clock.monotonic()
        last, end = self._last.get(name, (now, 0))
        if max_staleness is not None and name in self._last and now - last <= max_staleness:
            return end
        end = await self.durable_end()
        await self._rollups.catch_up(end, name)
        if name is None or self._rollups.counts_people(name):
            await self._identity.catch_up(end)
        self._last[name] = (now, end)
        return end

    async def identity(self, end: int) -> None:
        """Bring identity up to date with all events that have `seq < end`."""
        await self.durable_end()
        await self._identity.catch_up(end)

    async def rollup_tables(self, names: set[str]) -> dict[str, pa.Table]:
        """The table of each of these rollups, by name. Each rollup is brought up to date first."""
        tables = {}
        for name in sorted(names):
            await self.rollup(name)
            tables[name] = await self._rollups.table(name)
        return tables

    async def people(self, end: int) -> pa.Table:
        """A table of ids, each with its person, computed from the events with `seq < end`."""
        await self.identity(end)
        return (await self._identity.mapping_at(end)).pairs

    async def durable_end(self) -> int:
        """The end of the log, after a sync if `durability` is "os": events must be durable before a checkpoint is."""
        end = self._pipeline.next_seq
        if self._settings.durability == "os":
            await self._pipeline.sync()
        return end


TOTALS = "totals"  # key in Storage's meta: the lifetime totals, with the seq that they cover
ARCHIVED = "archived"  # key in Storage's meta: the last known watermark of the archive
_RELIEF_PAUSE_S = 60.0


class Totals(msgspec.Struct, frozen=True):
    """Totals over the log's rows before `seq`, saved so that opening an object need not read these rows again.

    Attributes:
        names: number of events by name.
        documents: positions of the operator's documents; None if an older Lakebed saved the totals without them.
    """

    seq: int = 0
    names: dict[str, int] = {}
    documents: list[int] | None = None


class RolledUp(msgspec.Struct, frozen=True):
    """The outcome of `rollup`: events added to rollups, the seq before which they are complete, log files deleted."""

    events: int
    seq: int
    pruned: int


class Archived(msgspec.Struct, frozen=True):
    """The outcome of an archive run: rows moved, commits, the archive's watermark afterwards, log files deleted."""

    rows: int
    commits: int
    watermark: int
    pruned: int


class Maintenance:
    """The maintenance jobs of one object. Only one archive run is active at a time; a second caller waits for it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        pipeline: Pipeline,
        storage: Storage,
        archive: Archive,
        rollups: Rollups,
        identity: Identity,
        history: EventHistory,
        live: LiveCounters,
        catch_up: CatchUp,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pipeline = pipeline
        self._storage = storage
        self._archive = archive
        self._rollups = rollups
        self._identity = identity
        self._history = history
        self._live = live
        self._catch_up = catch_up
        self.problems: dict[str, str] = {}  # by background job: the error of its last run, if that failed
        self.watermark = 0  # the archive's watermark, as last seen by this object
        self._archiving = asyncio.Lock()
        self._relief: asyncio.Task[None] | None = None
        self._relieve_at = (
            self._clock.monotonic()
        )  # earliest next time of `relieve`: an archive that is down is not tried at each commit

    async def rollup(self) -> RolledUp:
        """Bring all rollups up to date and delete log files that every consumer has processed. Idempotent."""
        end = await self._catch_up.durable_end()
        try:
            events = await self._rollups.catch_up(end)
        finally:  # a failed rollup must not prevent saving identity and totals
            await self._identity.catch_up(end)
            await self._identity.save()
            await self.save_totals()
            await self._pipeline.seal_old()
        return RolledUp(events=events, seq=end, pruned=await self.prune())

    async def save_totals(self) -> None:
        """Save the lifetime totals, so that the next opening need not read the log from its beginning."""
        rows = self._live.documents
        totals = Totals(self._pipeline.next_seq, self._live.totals(), list(rows.seqs) if rows.start == 0 else None)
        await self._catch_up.durable_end()
        if totals != await self._storage.get(TOTALS, Totals(), Totals):
            await self._storage.put(TOTALS, totals)

    async def archive(self, older_than: timedelta | datetime | float | None = None) -> Archived:
        """Move acknowledged events into Iceberg: all, or those received before a time or an age (a number is seconds).

        Raises:
            ArchiveConflict: the archive holds events of another log. This log keeps its events.
        """
        async with self._archiving:
            await self._pipeline.seal()
            start = await self._archive.watermark()
            await self._advance(start, added=False)
            end = await self._boundary(older_than)
            rows = commits = 0
            while start < end:
                stop = min(start + self._settings.archive_rows, end)
                tables = [table async for table in self._history.read(start, stop)]
                added = await self._archive.append(pa.concat_tables(tables), start, stop)
                if added:
                    rows, commits = rows + stop - start, commits + 1
                start = stop if added else await self._archive.watermark()
                await self._advance(start, added=added)
        return Archived(rows=rows, commits=commits, watermark=start, pruned=await self.prune())

    async def _advance(self, watermark: int, *, added: bool) -> None:
        """Record the archive's watermark.

        Events that this run has not archived itself were archived by this object before a crash, or by another object
        that shares the table. In the second case, trusting the watermark would delete log files that are archived
        nowhere.
        """
        if watermark <= self.watermark:
            return
        if not added and (watermark > self._pipeline.next_seq or not await self._history.is_archived(self.watermark)):
            raise ArchiveConflict(
                f"the archive's events from {self.watermark} to {watermark} are not those of this log",
                hint="If two objects share one table, give each its own name or namespace. No event was lost: the log "
                "still has them",
                watermark=watermark,
            )
        await self._storage.put(ARCHIVED, watermark)
        self.watermark = watermark

    async def _boundary(self, older_than: timedelta | datetime | float | None) -> int:
        """The first seq that is not to be archived. With a time or an age it is the end of a sealed file."""
        if older_than is None:
            return await self._catch_up.durable_end()
        if isinstance(older_than, datetime):
            before = to_us(older_than)
        else:
            age = older_than if isinstance(older_than, timedelta) else timedelta(seconds=older_than)
            before = self._clock.now_us() - round(age.total_seconds() * SECOND_US)
        with self._pipeline.view() as view:
            return max((file.end_seq for file in view.files if file.last_received < before), default=view.start_seq)

    async def prune(self) -> int:
        """Delete log files that every consumer has processed durably and whose retention is over."""
        totals = await self._storage.get(TOTALS, Totals(), Totals)
        # `watermark` is set after the archive verified its commit, so the archive has every deleted event.
        passed = min(
            totals.seq,
            self.watermark,
            await self._rollups.checkpoint(),
            await self._identity.checkpoint(),
            self._passed_by_counters(),
        )
        return await self._pipeline.prune(passed)

    def _passed_by_counters(self) -> int:
        """The first seq that a restart may read for the live counters. Prune keeps it even if retention is shorter."""
        since = self._clock.now_us() - round(max(RECENT_S, self._settings.active_ttl_s) * SECOND_US)
        with self._pipeline.view() as view:
            return max((file.end_seq for file in view.files if file.last_received < since), default=view.start_seq)

    def relieve(self) -> None:
        """Start archiving if the sealed files that are not archived take more than `log_bytes`. At most once a minute.

        Called after commits, so it must be cheap. Archived files that retention keeps do not count: archiving again
        would not remove them.
        """
        if self._pipeline.sealed_bytes <= self._settings.log_bytes or self._clock.monotonic() < self._relieve_at:
            return
        if self._pipeline.sealed_bytes_from(self.watermark) > self._settings.log_bytes and not self._archiving.locked():
            self._relieve_at = self._clock.monotonic() + _RELIEF_PAUSE_S
            self._relief = asyncio.get_running_loop().create_task(self._archive_over_limit())

    async def _archive_over_limit(self) -> None:
        try:
            await self.archive(None)
            self.problems.pop("archive", None)
        except LakebedError as error:
            self.problems["archive"] = f"the log exceeds log_bytes, and archiving it failed: {error}"

    async def close(self) -> None:
        """Wait until the archive run in the background has ended, if there is one."""
        if self._relief is not None:
            await self._relief
