"""What the archive tells about itself: plain facts, without pyiceberg."""

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
        committed_us: when, by the clock of the object that committed it.
        watermark: every event with a lower `seq` was archived; None in a snapshot that Lakebed did not write.
        operation: "append", "compact", "erase", or Iceberg's own word in a snapshot that Lakebed did not write.
        rows: events in it.
        tags: names that keep it from expiring.
    """

    id: int
    committed_us: int
    watermark: int | None
    operation: str
    rows: int
    tags: tuple[str, ...] = ()


class Compaction(msgspec.Struct, frozen=True):
    """What a compaction did. The old files stay until they are garbage."""

    commits: int = 0
    rows: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, other: Compaction) -> Compaction:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Compaction(*(mine + its for mine, its in pairs))


class Erasure(msgspec.Struct, frozen=True):
    """What an erasure removed. The bytes leave the disk when older snapshots expired and garbage was collected."""

    rows: int = 0
    files: int = 0


class Expiry(msgspec.Struct, frozen=True):
    """Snapshots that expired, or would have: ids, oldest first."""

    snapshots: tuple[int, ...]
    kept: int
    dry_run: bool


class Garbage(msgspec.Struct, frozen=True):
    """Files that were deleted, or would have been."""

    paths: tuple[str, ...]
    bytes: int
    dry_run: bool
