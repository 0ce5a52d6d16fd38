"""Descriptions of the archive's files, snapshots and maintenance results: plain structs, without pyiceberg."""

from __future__ import annotations

import msgspec

__all__ = ["Compaction", "DataFile", "Erasure", "Expiry", "Garbage", "Snapshot"]


class DataFile(msgspec.Struct, frozen=True, gc=False):
    """A live Parquet file of the archive. Bounds are inclusive, from the manifest; times are microseconds.

    Attributes:
        path: a local path, or a URI of the warehouse.
        columns: names of the columns that the file has; a column promoted later is missing here.
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
        committed_us: time of the commit, by the clock of the object that made it.
        watermark: every event with a lower `seq` was archived; None in a snapshot that Lakebed did not write.
        operation: "append", "compact", "erase", or Iceberg's operation for a snapshot that Lakebed did not write.
        rows: the number of its events.
        tags: names that keep it from expiring.
    """

    id: int
    committed_us: int
    watermark: int | None
    operation: str
    rows: int
    tags: tuple[str, ...] = ()


class Compaction(msgspec.Struct, frozen=True):
    """The result of a compaction. The old files stay until garbage collection."""

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
    """The result of an erasure. The bytes leave the disk when older snapshots expired and garbage was collected."""

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
