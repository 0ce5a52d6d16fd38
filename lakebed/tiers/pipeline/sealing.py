"""Sealed files: the events of one log file as Parquet, with promoted columns."""

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

__all__ = ["FORMAT", "SealedFile", "read_sealed", "remove_sealed", "seal", "sealed_path"]

FORMAT = 1
_FORMAT_KEY = b"lakebed.format"


class SealedFile(msgspec.Struct, frozen=True):
    """A sealed segment: a Parquet file with the rows `[first_seq, end_seq)` in seq order. Times are in microseconds."""

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
    def read(cls, path: Path) -> SealedFile:
        """The sealed file at `path`, as described by the file's footer. Blocks.

        Raises:
            LogCorrupted: the footer is damaged, or does not belong to the file's name.
            LogUnavailable: the system could not read the file.
            FormatTooNew: a newer Lakebed wrote the file.
        """
        import pyarrow.parquet as pq  # slow to import; an object that only tracks never needs it

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
        first, last = int(path.stem), int(path.stem) + metadata.num_rows - 1
        if seqs != (first, last):
            message = f"a sealed segment holds seq {seqs[0]} to {seqs[1]}, not {first} to {last}"
            raise LogCorrupted(message, path=path, offset=0)
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
    """Smallest and largest value of a column, as integers, from the row groups' statistics."""
    statistics = [metadata.row_group(i).column(column).statistics for i in range(metadata.num_row_groups)]
    if any(values is None or not values.has_min_max for values in statistics):
        raise ValueError("it has no statistics")
    return min(values.min_raw for values in statistics), max(values.max_raw for values in statistics)


def sealed_path(directory: Path, first_seq: int) -> Path:
    """The path of the sealed file that starts at `first_seq`."""
    return directory / f"{first_seq:020d}.parquet"


def read_sealed(path: Path, columns: list[str] | None = None, message_ids: list[str] | None = None) -> pa.Table:
    """The rows of a sealed file; only some columns or message ids if these are given. Blocks. Verifies checksums.

    Raises:
        LogCorrupted: the file is damaged. (DuckDB, which runs queries, does not verify checksums.)
        LogUnavailable: the system could not read the file.
    """
    import pyarrow.parquet as pq  # slow to import; an object that only tracks never needs it

    filters = None if message_ids is None else [("message_id", "in", message_ids)]
    try:
        return pq.read_table(path, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(error, path) from error


def _unreadable(error: Exception, path: Path) -> LogCorrupted | LogUnavailable:
    """The error to raise: a system error (such as too many open files) is not damage; an error of Arrow is damage."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        hint = "Fix the cause that the system names; only if that does not help restore the file from a backup"
        return LogUnavailable(f"a sealed segment cannot be read: {error}", hint=hint, path=path)
    return LogCorrupted(f"a sealed segment is damaged: {error}", path=path, offset=0)


def seal(
    disk: Disk, log: Path, batches: Sequence[pa.RecordBatch], promotions: Sequence[Promotion], engine: SqlEngine
) -> SealedFile:
    """Write the events of the log file `log` as Parquet, atomically, then remove the log file. Blocks.

    A crash leaves the log file, the Parquet file or both files.
    """
    import pyarrow.parquet as pq  # slow to import; an object that only tracks never needs it

    table = with_promoted(pa.Table.from_batches(batches), promotions, engine)
    table = table.replace_schema_metadata({_FORMAT_KEY: str(FORMAT)})
    path = log.with_suffix(".parquet")
    temporary = path.with_suffix(".parquet.tmp")
    options = with_filters(layout(table.column_names), table)
    pq.write_table(table, temporary, row_group_size=128_000, store_schema=True, version="2.6", **options)
    disk.sync_file(temporary)
    disk.replace(temporary, path)
    disk.sync_directory(path.parent)
    if log.exists():  # it is missing if an earlier attempt failed after this step
        disk.remove(log)
    disk.sync_directory(path.parent)
    return SealedFile.read(path)


def remove_sealed(disk: Disk, directory: Path, files: Sequence[SealedFile]) -> None:
    """Delete sealed files, oldest first, so that a crash leaves no gap in the log. Blocks. Raises OSError."""
    for file in files:
        disk.remove(file.path)
        file.path.with_suffix(".ids").unlink(missing_ok=True)
    disk.sync_directory(directory)
