"""What the archive's thread works with: the table, what it has read of it, and DuckDB for promoted columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot

from lakebed.errors import LakebedError
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive import append, check, compaction, erasure, garbage, snapshots
from lakebed.tiers.archive.catalog import work_inline
from lakebed.tiers.archive.manifests import Manifests
from lakebed.tiers.archive.models import Compaction, Erasure, Expiry, Garbage, Snapshot
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.views import State
from lakebed.tiers.archive.watermark import Progress

__all__ = ["ArchiveWorker"]


class ArchiveWorker:
    """The archive without asyncio. Every method blocks, and belongs on the one thread that made this object."""

    def __init__(self, events: EventsTable, engine: SqlEngine) -> None:
        work_inline()
        self._events = events
        self._engine = engine
        self._manifests = Manifests()

    def close(self) -> None:
        """Let go of connections and memory."""
        self._events.close()
        self._engine.close()

    def state(self, snapshot: int | str | None = None) -> State:
        """A snapshot's state; of None, the newest one's. Raises SnapshotExpired."""
        table = self._events.load()
        if snapshot is not None:
            found: IcebergSnapshot | None = snapshots.find(table, snapshot)
        else:
            found = None if table is None else table.current_snapshot()
        progress = Progress.of(found)
        if found is None or table is None:
            return State()
        return State(found.snapshot_id, progress.watermark, self._manifests.files(table, found))

    def state_or_none(self) -> State | None:
        """The newest state, or None where it cannot be read: whoever needs it asks again, and is told why."""
        try:
            return self.state()
        except LakebedError:
            return None

    def append(self, rows: pa.Table, start: int, end: int) -> bool:
        """See `Archive.append`."""
        return append.append(self._events, self._engine, rows, start, end)

    def compact(self) -> Compaction:
        """Compact one bounded part; nothing is left to do when it has no commits."""
        return compaction.compact(self._events, self._engine)

    def erase(self, column: str, values: Sequence[str]) -> Erasure:
        """See `Archive.erase`."""
        return erasure.erase(self._events, self._engine, column, values)

    def expire(self, *, dry_run: bool) -> Expiry:
        """See `Archive.expire`."""
        return snapshots.expire(self._events, dry_run=dry_run)

    def collect_garbage(self, pinned: set[str], *, dry_run: bool) -> Garbage:
        """See `Archive.collect_garbage`."""
        return garbage.collect(self._events, pinned, dry_run=dry_run)

    def snapshots(self) -> list[Snapshot]:
        """See `Archive.snapshots`."""
        return snapshots.snapshots(self._events)

    def tag(self, name: str, snapshot_id: int | None) -> None:
        """See `Archive.tag`."""
        snapshots.tag(self._events, name, snapshot_id)

    def untag(self, name: str) -> None:
        """See `Archive.untag`."""
        snapshots.untag(self._events, name)

    def check(self) -> list[str]:
        """See `Archive.check`."""
        return check.check(self._events, self._manifests)
