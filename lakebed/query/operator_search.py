"""Finds the operator's rows in what an older Lakebed wrote: it did not note where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lakebed.events.operator_rows import IS_OPERATOR, OperatorRows
from lakebed.query.parts import archive_parts, log_parts, readable
from lakebed.query.relation import Relation
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["OperatorSearch"]

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
_SQL = f"SELECT seq FROM events WHERE {IS_OPERATOR} ORDER BY seq"


class OperatorSearch:
    """Reads the column `source` of all files, once in the life of an object: what it finds is kept with the totals.

    Args:
        pipeline: L1, open.
        archive: L3.
        engine: reads Parquet.
    """

    def __init__(self, pipeline: Pipeline, archive: Archive, engine: SqlEngine) -> None:
        self._pipeline = pipeline
        self._archive = archive
        self._engine = engine
        self._lock = asyncio.Lock()  # one search at a time; the others then find it done

    async def completed(
        self, rows: OperatorRows, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> OperatorRows:
        """`rows`, with those that lie before its `start`.

        Where the archive does not reach up to the log, because it was lost or restored from an older backup, the result
        has what there is, and `rows` stays as it is: the archive may come back.

        Raises:
            ArchiveUnavailable: a file of the archive cannot be read.
        """
        async with self._lock:
            if rows.start == 0:
                return rows
            start = rows.start
            with self._pipeline.view() as log:
                async with self._archive.pin() as archived:
                    low, first = archived.watermark, log.end_seq - log.tail.num_rows
                    tail = log.tail.slice(max(0, low - first), max(0, start - max(low, first)))
                    parts = *archive_parts(archived.files, min(start, low)), *log_parts(log.files, low, start)
                    seqs: list[int] = await in_thread(partial(self._seqs, Relation(parts, tail, ())))
                    is_whole = low >= min(log.start_seq, start)
            if not is_whole:
                return OperatorRows([*seqs, *rows.seqs])
            rows.complete(seqs)
        return rows

    def _seqs(self, relation: Relation) -> list[int]:
        with readable():
            cursor = self._engine.cursor()
            try:
                relation.register(cursor)
                seqs: list[int] = cursor.sql(_SQL).to_arrow_table()["seq"].to_pylist()
                return seqs
            finally:
                cursor.close()
