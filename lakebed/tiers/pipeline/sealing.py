"""From a full log file to one Parquet file of the same events, promoted columns included."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.disk import Disk
from lakebed.errors import FormatTooNew, LogCorrupted, LogUnavailable
from lakebed.events.parquet import layout, with_filters
from lakebed.events.promotions import Promotion, with_promoted
from lakebed.sql_engine import SqlEngine

__all__ = ["FORMAT", "LogFile", "read_sealed", "seal", "sealed_path"]

FORMAT = 1
_FORMAT_KEY = b"lakebed.format"


class LogFile(msgspec.Struct, frozen=True):
    """A sealed segment: Parquet, rows in seq order from `first_seq` to before `end_seq`. Times in microseconds."""

    path: Path
    first_seq: int
    end_seq: int
    bytes: int
    min_timestamp: int
    max_timestamp: int
    first_received: int
    last_received: int
    columns: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> LogFile:
        """What the file's footer says. Blocks.

        Raises:
            LogCorrupted: when the footer does not read back, or does not belong to the file's name.
            LogUnavailable: when the system did not let it be read.
            FormatTooNew: when a newer Lakebed wrote it.
        """
        import pyarrow.parquet as pq  # dear to import; an object that only tracks never needs it

        try:
            metadata = pq.read_metadata(path)
            version = int((metadata.metadata or {}).get(_FORMAT_KEY, b"0"))
            names = metadata.schema.to_arrow_schema().names
            timestamps = _bounds(metadata, names.index("timestamp"))
            received = _bounds(metadata, names.index("received_at"))
            seqs = _bounds(metadata, names.index("seq"))
        except (pa.ArrowException, ValueError, OSError) as error:
            raise _unreadable(error, path) from error
        if version > FORMAT:
            message = f"{path} has format {version}, this Lakebed reads up to {FORMAT}"
            raise FormatTooNew(message, hint="Upgrade Lakebed", path=path)
        if seqs != (int(path.stem), int(path.stem) + metadata.num_rows - 1):
            raise LogCorrupted(f"a sealed segment holds seq {seqs[0]} to {seqs[1]}", path=path, offset=0)
        return cls(
            path=path,
            first_seq=seqs[0],
            end_seq=seqs[1] + 1,
            bytes=path.stat().st_size,
            min_timestamp=timestamps[0],
            max_timestamp=timestamps[1],
            first_received=received[0],
            last_received=received[1],
            columns=frozenset(names),
        )


def _bounds(metadata: Any, column: int) -> tuple[int, int]:
    """Smallest and largest value of a column, as integers, by the row groups' statistics."""
    statistics = [metadata.row_group(i).column(column).statistics for i in range(metadata.num_row_groups)]
    if any(one is None or not one.has_min_max for one in statistics):
        raise ValueError("it has no statistics")
    return min(one.min_raw for one in statistics), max(one.max_raw for one in statistics)


def sealed_path(directory: Path, first_seq: int) -> Path:
    """Where the sealed segment that starts at `first_seq` lies."""
    return directory / f"{first_seq:020d}.parquet"


def read_sealed(path: Path, columns: list[str] | None = None, message_ids: list[str] | None = None) -> pa.Table:
    """A sealed segment's rows, or those of some columns or message ids. Blocks. A flipped bit is noticed.

    Raises:
        LogCorrupted: when it does not read back. DuckDB, which answers queries, does not look at checksums.
        LogUnavailable: when the system did not let it be read.
    """
    import pyarrow.parquet as pq  # dear to import; an object that only tracks never needs it

    wanted = None if message_ids is None else [("message_id", "in", message_ids)]
    try:
        return pq.read_table(path, columns=columns, filters=wanted, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(error, path) from error


def _unreadable(error: Exception, path: Path) -> LogCorrupted | LogUnavailable:
    """A system that is out of descriptors, or refuses, says nothing about the file's bytes; Arrow's own errors do."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        hint = "Mend what the system complains of; only if that does not help restore the file from a backup"
        return LogUnavailable(f"a sealed segment cannot be read: {error}", hint=hint, path=path)
    return LogCorrupted(f"a sealed segment does not read back: {error}", path=path, offset=0)


def seal(
    disk: Disk, log: Path, batches: Sequence[pa.RecordBatch], promotions: Sequence[Promotion], engine: SqlEngine
) -> LogFile:
    """Write the events of the log file `log` as Parquet, atomically, then remove the log file. Blocks.

    A crash leaves the log file, both, or the Parquet file; never neither.
    """
    import pyarrow.parquet as pq  # dear to import; an object that only tracks never needs it

    table = with_promoted(pa.Table.from_batches(batches), promotions, engine)
    table = table.replace_schema_metadata({_FORMAT_KEY: str(FORMAT)})
    path = log.with_suffix(".parquet")
    temporary = path.with_suffix(".parquet.tmp")
    options = with_filters(layout(table.column_names), table)
    pq.write_table(table, temporary, row_group_size=128_000, store_schema=True, version="2.6", **options)
    disk.sync_file(temporary)
    disk.replace(temporary, path)
    disk.sync_directory(path.parent)
    if log.exists():  # not so when an earlier attempt failed after this step
        disk.remove(log)
    disk.sync_directory(path.parent)
    return LogFile.read(path)
