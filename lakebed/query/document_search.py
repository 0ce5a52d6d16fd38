"""Finds documents in an object of an older Lakebed, which did not keep their positions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lakebed.events.documents import IS_DOCUMENT, DocumentPositions
from lakebed.query.relation import Relation, archive_parts, log_parts, readable
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["DocumentSearch"]

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
_SQL = f"SELECT seq FROM events WHERE {IS_DOCUMENT} ORDER BY seq"


class DocumentSearch:
    """Reads the column `source` of all files, once in the life of an object: the positions are kept with the totals.

    Args:
        pipeline: L1, open.
        archive: L3.
        engine: reads Parquet.
    """

    def __init__(self, pipeline: Pipeline, archive: Archive, engine: SqlEngine) -> None:
        self._pipeline = pipeline
        self._archive = archive
        self._engine = engine
        self._lock = asyncio.Lock()  # one search at a time; callers that waited then find it done

    async def completed(self, known: DocumentPositions, in_thread: InThread) -> DocumentPositions:
        """Search the events before `known.start`. Returns `known` with the documents that were found.

        If the archive does not reach up to the log, because it was lost or restored from an older backup, the result
        has the documents that were found, but `known` is not changed: the archive may come back.

        Raises:
            ArchiveUnavailable: a file of the archive cannot be read.
        """
        async with self._lock:
            if known.start == 0:
                return known
            start = known.start
            with self._pipeline.view() as log:
                async with self._archive.pin() as archived:
                    low, first = archived.watermark, log.end_seq - log.tail.num_rows
                    tail = log.tail.slice(max(0, low - first), max(0, start - max(low, first)))
                    parts = *archive_parts(archived.files, min(start, low)), *log_parts(log.files, low, start)
                    seqs: list[int] = await in_thread(partial(self._seqs, Relation(parts, tail, ())))
                    is_whole = low >= min(log.start_seq, start)
            if not is_whole:
                return DocumentPositions([*seqs, *known.seqs])
            known.complete(seqs)
        return known

    def _seqs(self, relation: Relation) -> list[int]:
        with readable():
            cursor = self._engine.cursor()
            try:
                relation.register(cursor)
                seqs: list[int] = cursor.sql(_SQL).to_arrow_table()["seq"].to_pylist()
                return seqs
            finally:
                cursor.close()
