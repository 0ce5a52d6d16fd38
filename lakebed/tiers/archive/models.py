"""Descriptions of the archive's files, snapshots and maintenance results: plain structs, without pyiceberg.

Views of the archive pin states: garbage collection keeps the files of pinned states.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec

__all__ = [
    "ArchiveState",
    "ArchiveView",
    "Compaction",
    "DataFile",
    "Erasure",
    "Expiry",
    "Garbage",
    "PinnedStates",
    "Snapshot",
]


class DataFile(msgspec.Struct, frozen=True, gc=False):
    """A live Parquet file of the archive. Bounds are inclusive, from the manifest; times are microseconds.

    Attributes:
        path: a local path, or a URI of the warehouse.
        columns: names of the columns that the file has; a column that was promoted later is missing.
    """

    path: str
    rows: int
    bytes: int
    first_seq: int
    last_seq: int
    min_timestamp: int
    max_timestamp: int
    min_received: int
    max_received: int
    columns: frozenset[str]


class Snapshot(msgspec.Struct, frozen=True):
    """One state of the archive that can be read again, until it expires.

    Attributes:
        committed_us: time of the commit, in microseconds, by the clock of the object that committed.
        watermark: every event with a lower `seq` was archived; None in a snapshot that Lakebed did not write.
        operation: "append", "compact", "erase", or Iceberg's operation for a snapshot that Lakebed did not write.
        rows: the number of the snapshot's events.
        tags: names that keep the snapshot from expiring.
    """

    id: int
    committed_us: int
    watermark: int | None
    operation: str
    rows: int
    tags: tuple[str, ...] = ()


class Compaction(msgspec.Struct, frozen=True):
    """The result of a compaction. The old files are kept until garbage collection."""

    commits: int = 0
    rows: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, other: Compaction) -> Compaction:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Compaction(*(left + right for left, right in pairs))


class Erasure(msgspec.Struct, frozen=True):
    """The result of an erasure. Bytes leave the disk when older snapshots have expired and garbage was collected."""

    rows: int = 0
    files: int = 0


class Expiry(msgspec.Struct, frozen=True):
    """Ids of the snapshots that expired, or would expire (`dry_run`), oldest first."""

    snapshots: tuple[int, ...]
    kept: int
    dry_run: bool


class Garbage(msgspec.Struct, frozen=True):
    """Files that were deleted, or would be deleted (`dry_run`)."""

    paths: tuple[str, ...]
    bytes: int
    dry_run: bool


class ArchiveState(msgspec.Struct, frozen=True):
    """One state of the archive: a snapshot, its watermark and its live files."""

    snapshot_id: int | None = None
    watermark: int = 0
    files: tuple[DataFile, ...] = ()


class PinnedStates:
    """The states that views use, and the newest state if it is known without the catalog. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects all below
        self._held: dict[int, ArchiveState] = {}
        self._numbers = itertools.count()
        self._newest: ArchiveState | None = None

    @property
    def newest(self) -> ArchiveState | None:
        """The newest state, or None if it must be read from the catalog."""
        with self._lock:
            return self._newest

    @newest.setter
    def newest(self, state: ArchiveState | None) -> None:
        with self._lock:
            self._newest = state

    def hold(self, state: ArchiveState) -> tuple[int, ArchiveState]:
        """Pin `state`; returns a number for `release`, and the state."""
        with self._lock:
            return self._hold(state)

    def hold_newest(self) -> tuple[int, ArchiveState] | None:
        """Pin the newest state, in one step. Returns None if that state is not known."""
        with self._lock:
            return None if self._newest is None else self._hold(self._newest)

    def _hold(self, state: ArchiveState) -> tuple[int, ArchiveState]:
        number = next(self._numbers)
        self._held[number] = state
        return number, state

    def release(self, number: int) -> None:
        """Unpin the state for which `hold` or `hold_newest` returned `number`."""
        with self._lock:
            del self._held[number]

    def paths(self) -> set[str]:
        """Paths of all pinned files."""
        with self._lock:
            return {file.path for state in self._held.values() for file in state.files}


class ArchiveView:
    """One state of the archive, pinned. Use it as an async context manager.

    While a view is open, this process deletes none of its files. A garbage collector in another process does not know
    the view; against that collector only `garbage_grace_s` protects.

    Attributes:
        snapshot_id: the snapshot's id; None if nothing was archived yet.
        watermark: every event with a lower `seq` is in `files`, once, unless it was erased.
        files: the live files, by first timestamp.
    """

    snapshot_id: int | None
    watermark: int
    files: tuple[DataFile, ...]

    def __init__(self, pins: PinnedStates, acquire: Callable[[], Awaitable[tuple[int, ArchiveState]]]) -> None:
        self._pins = pins
        self._acquire = acquire
        self._number: int | None = None

    async def __aenter__(self) -> Self:
        """Pin the state. Raises the errors of `Archive.pin`."""
        self._number, state = await self._acquire()
        self.snapshot_id, self.watermark, self.files = state.snapshot_id, state.watermark, state.files
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is not None:
            self._pins.release(self._number)
            self._number = None
