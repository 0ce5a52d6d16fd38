"""The files of both tiers as parts of a relation, and the error for a file that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lakebed.errors import ArchiveUnavailable
from lakebed.query.relation import Part
from lakebed.tiers.archive.models import DataFile
from lakebed.tiers.pipeline.sealing import SealedFile

__all__ = ["archive_parts", "log_parts", "readable"]


def archive_parts(files: Iterable[DataFile], end: int) -> Iterator[Part]:
    """The parts of the archive's `files` with `seq < end`."""
    for file in files:
        if file.first_seq < end:
            yield Part(
                tier="L3",
                path=file.path,
                first_seq=file.first_seq,
                end_seq=file.last_seq + 1,
                rows=file.rows,
                low_seq=0,
                high_seq=end,
                min_timestamp=file.min_timestamp,
                max_timestamp=file.max_timestamp,
                columns=file.columns,
            )


def log_parts(files: Iterable[SealedFile], start: int, end: int) -> Iterator[Part]:
    """The parts of the log's `files` with `start <= seq < end`."""
    for file in files:
        if max(start, file.first_seq) < min(end, file.end_seq):
            yield Part(
                tier="L1",
                path=str(file.path),
                first_seq=file.first_seq,
                end_seq=file.end_seq,
                rows=file.end_seq - file.first_seq,
                low_seq=start,
                high_seq=end,
                min_timestamp=file.min_timestamp,
                max_timestamp=file.max_timestamp,
                columns=file.columns,
            )


@contextmanager
def readable() -> Iterator[None]:
    """Raise errors of DuckDB as ArchiveUnavailable: in SQL of Lakebed's own, they mean an unreadable file."""
    import duckdb  # see sql_engine.py

    try:
        yield
    except duckdb.Error as error:
        raise ArchiveUnavailable(
            f"archived events cannot be read: {str(error).partition(chr(10))[0]}",
            hint="Run check(); restore missing or damaged files from a backup",
        ) from error
