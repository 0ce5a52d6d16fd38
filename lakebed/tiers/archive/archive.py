"""L3: the archive, one Iceberg table an object. It keeps every event for ever, and what the table once looked like.

pyiceberg is imported when the archive is first used, and all of its work is done on the archive's one thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from lakebed.clock import Clock
from lakebed.concurrency import Worker
from lakebed.disk import Disk
from lakebed.errors import ObjectClosed
from lakebed.events.promotions import Promotion
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.models import Compaction, DataFile, Erasure, Expiry, Garbage, Snapshot
from lakebed.tiers.archive.views import ArchiveView, Pins, State

if TYPE_CHECKING:
    from lakebed.tiers.archive.worker import ArchiveWorker

__all__ = ["Archive", "ArchiveView", "Compaction", "DataFile", "Erasure", "Expiry", "Garbage", "Snapshot"]

_T = TypeVar("_T")


class _Look:
    """One look at the catalog. Its own pin is held until the last of those who share it has one."""

    held: asyncio.Future[tuple[int, State]]

    def __init__(self) -> None:
        self.begun = False  # set on the archive's thread, before it asks: who reads False is answered by what it finds
        self.waiters = 0


class Archive:
    """An object's events below the watermark, in Iceberg.

    Every call that changes it is a transaction: it happens wholly or not at all, whatever is killed when, and a
    cancelled await does not stop it halfway (it goes on, alone, on the archive's thread).

    Args:
        directory: for the catalog and, unless the settings say otherwise, the files. Made by the first `append`.
        name: of the object; of the table in an external catalog.
        promotions: columns beside the base columns, in order; `append` and `compact` compute those that are missing.

    Raises, whatever is called:
        ArchiveUnavailable: when the catalog or the warehouse did not answer, or its answer is not known.
        ArchiveConflict: when another program committed, and the watermark is not to be trusted.
        FormatTooNew: when a newer Lakebed wrote the table.
        ObjectClosed: after `close`.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        settings: Settings,
        clock: Clock,
        disk: Disk,
        promotions: Sequence[Promotion],
    ) -> None:
        self._directory = directory
        self._name = name
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._promotions = tuple(promotions)
        self._pins = Pins()
        self._worker = Worker(f"archive-{name}")
        self._warehouse: ArchiveWorker | None = None  # belongs to the thread
        self._looks: dict[int | str | None, _Look] = {}
        self._closed = False

    def exists(self) -> bool:
        """Whether anything may ever have been archived. Cheap: looks for the catalog's file and asks nobody."""
        return bool(self._settings.catalog) or (self._directory / "catalog.db").exists()

    async def watermark(self) -> int:
        """The first `seq` that is not archived; 0 when nothing was."""
        async with self.pin() as view:
            return view.watermark

    def pin(self, snapshot: int | str | None = None) -> ArchiveView:
        """A view of a snapshot: None is the newest, an int its id, a text its tag. `async with archive.pin() as view`.

        The newest one is known from memory after the first time, without waiting for work under way, unless the
        catalog is an external one: that is asked each time.

        Raises (when entered):
            SnapshotExpired: when there is no such snapshot or tag. The newest is never given instead.
        """

        async def acquire() -> tuple[int, State]:
            self._check_open()
            if snapshot is None:
                held = self._pins.hold_newest() if self.exists() else self._pins.hold(State())
                if held is not None:
                    return held
            return await self._pinned(snapshot)

        return ArchiveView(self._pins, acquire)

    async def _pinned(self, snapshot: int | str | None) -> tuple[int, State]:
        """Find a state and pin it in one job, so that no garbage collection comes between.

        All who ask before the job begins share it: a catalog that is slow to answer is not asked once for each of them.
        """
        look = self._looks.get(snapshot)
        if look is None or look.begun:
            look = _Look()
            look.held = self._submit(partial(self._look, look, snapshot))
            self._looks[snapshot] = look
        look.waiters += 1
        try:
            _, state = await asyncio.shield(look.held)
            return self._pins.hold(state)
        finally:
            look.waiters -= 1
            if not look.waiters:
                if self._looks.get(snapshot) is look:
                    del self._looks[snapshot]
                look.held.add_done_callback(self._let_go)

    def _look(self, look: _Look, snapshot: int | str | None, warehouse: ArchiveWorker) -> tuple[int, State]:
        look.begun = True
        held = self._pins.hold(warehouse.state(snapshot))
        if snapshot is None and not self._settings.catalog:
            self._pins.newest = held[1]
        return held

    def _let_go(self, future: asyncio.Future[tuple[int, State]]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._pins.release(future.result()[0])

    async def append(self, table: pa.Table, start: int, end: int) -> bool:
        """Archive the events `[start, end)`, exactly once. When it returns they are durable and were read back.

        Args:
            table: exactly those events, base columns and promoted ones; missing promoted ones are computed.
            start: `seq` of the first; must be the watermark.
            end: `seq` after the last; becomes the watermark.

        Returns:
            False when the archive had them already.

        Raises:
            ArchiveConflict: when the archive is neither at `start` nor past `end`.
            PromotionConflict: when a promoted column has another type in the archive.
        """
        return await self._change(lambda warehouse: warehouse.append(table, start, end))

    async def compact(self) -> Compaction:
        """Merge the small files of each day. Rows, answers and the watermark stay as they are.

        It commits a bounded part at a time; other calls get their turn in between, and what is done stays done.
        """
        self._check_open()
        total = Compaction()
        while not self._closed:
            done = await self._change(lambda warehouse: warehouse.compact())
            if not done.commits:
                break
            total += done
        return total

    async def erase(self, column: str, values: Sequence[str]) -> Erasure:
        """Remove the events whose text `column` (such as `user_id`) has one of `values`, in one commit.

        The watermark stays. The bytes leave the disk when snapshots from before have expired and garbage was
        collected. Only the archive is searched: the log is not.
        """
        return await self._change(lambda warehouse: warehouse.erase(column, values))

    async def expire(self, *, dry_run: bool = False) -> Expiry:
        """Forget snapshots beyond `snapshots_keep` that are older than `snapshots_age_s`.

        The newest one and tagged ones stay. Their files stay until garbage is collected.
        """
        return await self._change(lambda warehouse: warehouse.expire(dry_run=dry_run))

    async def collect_garbage(self, *, dry_run: bool = False) -> Garbage:
        """Delete the files that no snapshot needs, older than `garbage_grace_s`, in no open view.

        Raises:
            ArchiveUnavailable: when the warehouse is not local (nothing is deleted then), or a file that says what is
                needed cannot be read.
        """
        return await self._change(lambda warehouse: warehouse.collect_garbage(self._pins.paths(), dry_run=dry_run))

    async def snapshots(self) -> list[Snapshot]:
        """Every snapshot that can be read, oldest first."""
        if not self.exists():
            return []
        return await self._run(lambda warehouse: warehouse.snapshots())

    async def tag(self, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot, the newest by default, and keep it from expiring. A tag may be moved.

        Raises:
            SnapshotExpired: when it does not exist.
            InvalidName: when `name` is not a word of letters, digits, `.`, `_` and `-`, or is "main".
        """
        await self._run(lambda warehouse: warehouse.tag(name, snapshot_id))

    async def untag(self, name: str) -> None:
        """Take a tag away. Raises SnapshotExpired when there is none."""
        await self._run(lambda warehouse: warehouse.untag(name))

    async def check(self) -> list[str]:
        """What is wrong, a sentence each: the watermark, row counts, bounds, and every file's existence and size."""
        if not self.exists():
            return []
        return await self._run(lambda warehouse: warehouse.check())

    async def close(self) -> None:
        """Finish the work under way and let go of thread, catalog and memory. May be called twice."""
        self._closed = True
        if self._worker.has_thread:
            await asyncio.shield(self._worker.run(self._close))
        self._worker.close()

    def _close(self) -> None:
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None

    async def _change(self, job: Callable[[ArchiveWorker], _T]) -> _T:
        """Run a job that may commit, and know the newest state anew when it is over, however it ended."""

        def change(warehouse: ArchiveWorker) -> _T:
            try:
                return job(warehouse)
            finally:
                self._pins.newest = None
                if not self._settings.catalog:
                    self._pins.newest = warehouse.state_or_none()

        return await self._run(change)

    async def _run(self, job: Callable[[ArchiveWorker], _T]) -> _T:
        return await asyncio.shield(self._submit(job))

    def _submit(self, job: Callable[[ArchiveWorker], _T]) -> asyncio.Future[_T]:
        self._check_open()
        return self._worker.run(lambda: job(self._open()))

    def _check_open(self) -> None:
        if self._closed:
            raise ObjectClosed(f"the archive of {self._name} is closed", hint="Open the object again")

    def _open(self) -> ArchiveWorker:
        if self._warehouse is None:
            from lakebed.tiers.archive.table import EventsTable  # pyiceberg costs more than all the rest
            from lakebed.tiers.archive.worker import ArchiveWorker

            events = EventsTable(
                directory=self._directory,
                name=self._name,
                settings=self._settings,
                clock=self._clock,
                disk=self._disk,
                promotions=self._promotions,
            )
            engine = SqlEngine(threads=self._settings.query_threads, memory_bytes=self._settings.query_memory_bytes)
            self._warehouse = ArchiveWorker(events, engine)
        return self._warehouse
