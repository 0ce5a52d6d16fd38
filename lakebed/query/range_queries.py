"""Runs SQL that Lakebed generates over a range of events, for consumers that need few of its columns or rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from lakebed.errors import ArchiveConflict
from lakebed.query.event_history import EventHistory, check_gap
from lakebed.query.relation import Part, Relation, log_parts, readable
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.archive.models import ArchiveView
from lakebed.tiers.pipeline.log_view import LogView
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.pipeline.sealing import read_sealed

__all__ = ["RangeQueries"]

_ROWS = "SELECT count(*) AS rows FROM events"


class RangeQueries:
    """Runs SELECTs over a range of events in log and archive. Columns that the SQL does not name are not read.

    Args:
        history: lists the archive's files and runs blocking work.
        pipeline: the log (L1), open.
        archive: the archive (L3).
        engine: reads Parquet.
    """

    def __init__(self, history: EventHistory, pipeline: Pipeline, archive: Archive, engine: SqlEngine) -> None:
        self._history = history
        self._pipeline = pipeline
        self._archive = archive
        self._engine = engine
        self._checked: set[Path] = set()  # log files whose checksums were checked

    async def ask(self, start: int, end: int, statements: Sequence[str]) -> list[pa.Table]:
        """Run SELECTs over `events`, which has exactly the events `[start, end)` with their base columns.

        Only events that were erased from the archive are missing. Events are read from the log if it still has them,
        else from the archive.

        Raises:
            ValueError: `end` lies beyond the log.
            ArchiveConflict: an event that was not erased is in neither tier.
            ArchiveUnavailable: a file of the archive cannot be read.
            LogCorrupted: a file of the log fails its checksum.
            LogUnavailable: the system cannot read a file of the log.
        """
        with self._pipeline.view() as log:
            if end > log.end_seq:
                raise ValueError(f"the log ends at {log.end_seq}, before the end of the range, {end}")
            middle = min(max(start, log.start_seq), end)
            async with AsyncExitStack() as stack:
                parts: list[Part] = []
                whole = False
                if start < middle:
                    archived = await stack.enter_async_context(self._archive.pin())
                    check_gap(log, archived, middle - 1)
                    parts += self._archived(archived, start, middle)
                    # Else unknown events were erased.
                    whole = sum(file.rows for file in archived.files) == archived.watermark
                await self._check_log(log, middle, end)
                parts += log_parts(log.files, middle, end)
                first = log.end_seq - log.tail.num_rows
                tail = log.tail.slice(max(middle - first, 0), max(end - max(middle, first), 0))
                relation = Relation(tuple(parts), tail, ())
                work = partial(self._answers, relation, [_ROWS, *statements] if whole else statements)
                answers = await self._history.in_thread(work)
        if whole:
            _check_rows(answers.pop(0)["rows"][0].as_py(), start, end)
        return answers

    async def _check_log(self, log: LogView, start: int, end: int) -> None:
        """Check the checksums of each log file once, because DuckDB does not check them."""
        self._checked &= {file.path for file in log.files}
        for file in log.files:
            if max(start, file.first_seq) < min(end, file.end_seq) and file.path not in self._checked:
                await self._history.in_thread(partial(read_sealed, file.path))
                self._checked.add(file.path)

    def _archived(self, archived: ArchiveView, start: int, end: int) -> list[Part]:
        return [
            msgspec.structs.replace(part, low_seq=start, high_seq=end)
            for part in self._history.archive_parts(archived.files, archived.watermark)
            if part.first_seq < end and start < part.end_seq
        ]

    def _answers(self, relation: Relation, statements: Sequence[str]) -> list[pa.Table]:
        with readable():
            cursor = self._engine.cursor()
            try:
                relation.register(cursor)
                return [cursor.sql(sql).to_arrow_table() for sql in statements]
            finally:
                cursor.close()


def _check_rows(rows: int, start: int, end: int) -> None:
    if rows != end - start:
        raise ArchiveConflict(
            f"log and archive have {rows} rows for the {end - start} events from {start} to {end - 1}",
            hint="Run check(); restore the missing files from a backup",
            start=start,
            end=end,
        )
