"""L3: the archive, one Iceberg table for each object. Keeps every event for ever, and earlier states of the table.

pyiceberg is imported when the archive is first used, and runs only on the archive's one thread.
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
from lakebed.tiers.archive.models import (
    ArchiveState,
    ArchiveView,
    Compaction,
    Erasure,
    Expiry,
    Garbage,
    PinnedStates,
    Snapshot,
)

if TYPE_CHECKING:
    from lakebed.tiers.archive.worker import ArchiveWorker

__all__ = ["Archive"]

_T = TypeVar("_T")


class _CatalogRead:
    """One read of the catalog, shared by callers. Pins the state that was read until each caller has pinned it."""

    pinned: asyncio.Future[tuple[int, ArchiveState]]

    def __init__(self) -> None:
        self.started = (
            False  # set on the archive's thread, before the read: a caller that sees False may share the read
        )
        self.waiters = 0


class Archive:
    """An object's events below the watermark, in Iceberg.

    Every call that changes the archive is a transaction: it happens completely or not at all, also if the process is
    killed. A cancelled await does not stop a call halfway: the call continues on the archive's thread.

    Args:
        directory: the directory of the catalog and, unless the settings name another place, of the files. Created by
            the first `append`.
        name: the object's name; in an external catalog also the table's name.
        promotions: columns beside the base columns, in order; `append` and `compact` compute missing ones.

    Raises, from every method:
        ArchiveUnavailable: the catalog or the warehouse did not answer, or the outcome of a commit is unknown.
        ArchiveConflict: another program committed, and the watermark cannot be trusted.
        FormatTooNew: a newer Lakebed wrote the table.
        ObjectClosed: `close` was called.
    """

    def __init__(
        self, directory: Path, name: str, settings: Settings, clock: Clock, disk: Disk, promotions: Sequence[Promotion]
    ) -> None:
        self._directory = directory
        self._name = name
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._promotions = tuple(promotions)
        self._pins = PinnedStates()
        self._thread = Worker(f"archive-{name}")
        self._worker: ArchiveWorker | None = None  # belongs to the thread
        self._reads: dict[int | str | None, _CatalogRead] = {}
        self._closed = False

    def exists(self) -> bool:
        """Whether the archive may have events. Cheap: checks only whether the catalog's file exists."""
        return bool(self._settings.catalog) or (self._directory / "catalog.db").exists()

    async def watermark(self) -> int:
        """The first `seq` that is not archived; 0 if no event is archived."""
        async with self.pin() as view:
            return view.watermark

    def pin(self, snapshot: int | str | None = None) -> ArchiveView:
        """A view of the newest snapshot, or the one with this id (int) or tag. `async with archive.pin() as view`.

        After the first read, the newest snapshot is known from memory, without waiting for running work. An external
        catalog is read each time.

        Raises (when the view is entered):
            SnapshotExpired: there is no such snapshot or tag. The newest snapshot is never used instead.
        """

        async def acquire() -> tuple[int, ArchiveState]:
            self._check_open()
            if snapshot is None:
                held = self._pins.hold_newest() if self.exists() else self._pins.hold(ArchiveState())
                if held is not None:
                    return held
            return await self._pinned(snapshot)

        return ArchiveView(self._pins, acquire)

    async def _pinned(self, snapshot: int | str | None) -> tuple[int, ArchiveState]:
        """Read a state and pin it in one job, so that no garbage collection runs in between.

        All callers before the job starts share the job: a slow catalog is not read once for each caller.
        """
        read = self._reads.get(snapshot)
        if read is None or read.started:
            read = _CatalogRead()
            read.pinned = self._submit(partial(self._read, read, snapshot))
            self._reads[snapshot] = read
        read.waiters += 1
        try:
            _, state = await asyncio.shield(read.pinned)
            return self._pins.hold(state)
        finally:
            read.waiters -= 1
            if not read.waiters:
                if self._reads.get(snapshot) is read:
                    del self._reads[snapshot]
                read.pinned.add_done_callback(self._release)

    def _read(self, read: _CatalogRead, snapshot: int | str | None, worker: ArchiveWorker) -> tuple[int, ArchiveState]:
        read.started = True
        pinned = self._pins.hold(worker.state(snapshot))
        if snapshot is None and not self._settings.catalog:
            self._pins.newest = pinned[1]
        return pinned

    def _release(self, future: asyncio.Future[tuple[int, ArchiveState]]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._pins.release(future.result()[0])

    async def append(self, table: pa.Table, start: int, end: int) -> bool:
        """Archive the events `[start, end)`, exactly once. When the call returns, the commit is durable and verified.

        Args:
            table: exactly these events, with base columns; missing promoted columns are computed.
            start: the `seq` of the first event; must be the watermark.
            end: the `seq` after the last event; becomes the watermark.

        Returns:
            False if the archive already had the events, else True.

        Raises:
            ArchiveConflict: the watermark is neither `start` nor at least `end`.
            PromotionConflict: a promoted column has another type in the archive.
        """
        return await self._change(lambda worker: worker.append(table, start, end))

    async def compact(self) -> Compaction:
        """Merge the small files of each day. Rows, answers and the watermark do not change.

        The work is committed in bounded parts; other calls run in between, and a later error undoes no committed part.
        """
        self._check_open()
        total = Compaction()
        while not self._closed:
            done = await self._change(lambda worker: worker.compact())
            if not done.commits:
                break
            total += done
        return total

    async def erase(self, column: str, values: Sequence[str]) -> Erasure:
        """Remove the events whose text `column` (such as `user_id`) has one of `values`, in one commit.

        The watermark does not change. The bytes leave the disk when earlier snapshots have expired and garbage was
        collected. Not promised: an erasure from the log, which is not searched.
        """
        return await self._change(lambda worker: worker.erase(column, values))

    async def expire(self, *, dry_run: bool = False) -> Expiry:
        """Remove snapshots beyond `snapshots_keep` that are older than `snapshots_age_s`.

        The newest snapshot and tagged ones are kept. The files of removed snapshots stay until garbage is collected.
        """
        return await self._change(lambda worker: worker.expire(dry_run=dry_run))

    async def collect_garbage(self, *, dry_run: bool = False) -> Garbage:
        """Delete the files that no snapshot and no open view needs and that are older than `garbage_grace_s`.

        Raises:
            ArchiveUnavailable: the warehouse is not local, or a manifest cannot be read; nothing is deleted then. Also
                raised if a file cannot be deleted.
        """
        return await self._change(lambda worker: worker.collect_garbage(self._pins.paths(), dry_run=dry_run))

    async def snapshots(self) -> list[Snapshot]:
        """Every readable snapshot, oldest first."""
        if not self.exists():
            return []
        return await self._run(lambda worker: worker.list_snapshots())

    async def tag(self, name: str, snapshot_id: int | None = None) -> None:
        """Tag a snapshot (by default the newest), so that it does not expire. An existing tag is moved.

        Raises:
            SnapshotExpired: the snapshot does not exist.
            InvalidName: `name` is not a word of letters, digits, `.`, `_` and `-`, or is "main".
        """
        await self._run(lambda worker: worker.tag(name, snapshot_id))

    async def untag(self, name: str) -> None:
        """Remove a tag. Raises SnapshotExpired if there is no such tag."""
        await self._run(lambda worker: worker.untag(name))

    async def check(self) -> list[str]:
        """Problems of the watermark, row counts, bounds, and of each file's existence and size, one sentence each."""
        if not self.exists():
            return []
        return await self._run(lambda worker: worker.check())

    async def close(self) -> None:
        """Finish running work, then release thread, catalog and memory. Idempotent."""
        self._closed = True
        if self._thread.has_thread:
            await asyncio.shield(self._thread.run(self._close))
        self._thread.close()

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    async def _change(self, job: Callable[[ArchiveWorker], _T]) -> _T:
        """Run a job that may commit, then read the newest state, also if the job has failed."""

        def change(worker: ArchiveWorker) -> _T:
            try:
                return job(worker)
            finally:
                self._pins.newest = None
                if not self._settings.catalog:
                    self._pins.newest = worker.state_or_none()

        return await self._run(change)

    async def _run(self, job: Callable[[ArchiveWorker], _T]) -> _T:
        return await asyncio.shield(self._submit(job))

    def _submit(self, job: Callable[[ArchiveWorker], _T]) -> asyncio.Future[_T]:
        self._check_open()
        return self._thread.run(lambda: job(self._open()))

    def _check_open(self) -> None:
        if self._closed:
            raise ObjectClosed(f"the archive of {self._name} is closed", hint="Open the object again")

    def _open(self) -> ArchiveWorker:
        if self._worker is None:
            from lakebed.tiers.archive.worker import ArchiveWorker  # pyiceberg costs more than all other imports

            self._worker = ArchiveWorker(
                directory=self._directory,
                name=self._name,
                settings=self._settings,
                clock=self._clock,
                disk=self._disk,
                promotions=self._promotions,
                engine=SqlEngine(threads=self._settings.query_threads, memory_bytes=self._settings.query_memory_bytes),
            )
        return self._worker
