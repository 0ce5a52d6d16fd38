"""The archive's table with all its operations. Imported late, on the archive's thread: this file needs pyiceberg."""

from __future__ import annotations

from lakebed.errors import LakebedError
from lakebed.tiers.archive.commits import append, compact
from lakebed.tiers.archive.erasure import erase
from lakebed.tiers.archive.garbage import check, collect_garbage
from lakebed.tiers.archive.models import ArchiveState
from lakebed.tiers.archive.snapshots import expire, find, list_snapshots, tag, untag
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["ArchiveWorker"]


class ArchiveWorker(EventsTable):
    """An `EventsTable` whose operations, each a function in a file of its own, are its methods.

    Every method blocks, and runs on the thread that created the worker.
    """

    append = append
    check = check
    collect_garbage = collect_garbage
    compact = compact
    erase = erase
    expire = expire
    list_snapshots = list_snapshots
    tag = tag
    untag = untag

    def state(self, snapshot: int | str | None = None) -> ArchiveState:
        """The state at a snapshot, or at the newest snapshot if None. Raises SnapshotExpired if there is none."""
        table = self.load()
        newest = None if table is None else table.current_snapshot()
        current = newest if snapshot is None else find(table, snapshot)
        if table is None or current is None:
            return ArchiveState()
        progress = Progress.of(current)
        return ArchiveState(current.snapshot_id, progress.watermark, self.manifests.files(table, current))

    def state_or_none(self) -> ArchiveState | None:
        """The newest state, or None if the state cannot be read. The next caller that needs it gets the error."""
        try:
            return self.state()
        except LakebedError:
            return None
