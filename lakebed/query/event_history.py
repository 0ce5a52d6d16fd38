"""Joins archive (seq < W) and log (seq >= W) to one sequence of all events. They are split by seq, never by time.

W is the watermark of the pinned archive snapshot. The log is pinned first: it is pruned only below a durable watermark,
and watermarks only grow, so a log pinned before the archive starts at or below each W that is pinned after it. In the
other order, an archive commit and a prune could come in between, and the events from the old W to the new one would be
in neither.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from lakebed.concurrency import Worker
from lakebed.errors import ArchiveConflict
from lakebed.events.documents import DocumentPositions, without_documents
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.promotions import Promotion, columns_of, quoted, schema_of, with_promoted
from lakebed.query.bounds import UNBOUNDED, Bounds
from lakebed.query.document_search import DocumentSearch
from lakebed.query.relation import Part, Relation, archive_parts, log_parts, read_parquet, readable
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.archive.models import ArchiveView, DataFile
from lakebed.tiers.pipeline.log_view import LogView
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.pipeline.sealing import SealedFile, read_sealed

__all__ = ["Cut", "EventHistory", "check_gap"]

_COMPARED = 50_000  # events whose ids are compared in one step
_CACHED_POSITIONS = 1024  # by moment; each takes two integers
_T = TypeVar("_T")


class EventHistory:
    """All events that an object has ever stored, in log and archive.

    Args:
        pipeline: the log (L1), open.
        archive: the archive (L3).
        promotions: promoted columns that each table gets.
        engine: reads Parquet and computes promoted columns.
        documents: known positions of documents; None means that there are no documents.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        archive: Archive,
        promotions: tuple[Promotion, ...],
        engine: SqlEngine,
        documents: DocumentPositions | None = None,
    ) -> None:
        self.promotions = promotions
        self._pipeline = pipeline
        self._archive = archive
        self._engine = engine
        self._documents = DocumentPositions() if documents is None else documents
        self._search = DocumentSearch(pipeline, archive, engine)
        # Two threads: `read` sorts windows of the archive for seconds, and a query must not wait for that.
        self._worker = Worker("history", threads=2)
        self._parts: tuple[tuple[DataFile, ...], int, tuple[Part, ...]] = ((), 0, ())  # the newest of archive_parts
        self._positions: dict[int, int] = {}  # as_of_us -> N; never changes once it is known

    def cut(self, *, as_of_us: int | None = None, snapshot: int | str | None = None) -> Cut:
        """The events for one query: all events, those received up to `as_of_us`, or those of an archive snapshot.

        Use the cut with `async with`. No file is deleted until that block ends.

        Raises:
            SnapshotExpired: the snapshot or tag does not exist any more. Raised by `async with`.
        """
        return Cut(self, self._pipeline, self._archive, as_of_us=as_of_us, snapshot=snapshot)

    @property
    def next_seq(self) -> int:
        """The seq after the last acknowledged event."""
        return self._pipeline.next_seq

    async def resolve(self, as_of_us: int) -> int:
        """The position N: exactly the events with `seq < N` were received up to `as_of_us`. N never changes."""
        async with self.cut(as_of_us=as_of_us) as cut:
            return cut.end_seq

    async def documents(self) -> DocumentPositions:
        """The positions of all documents among all events of the object.

        Raises:
            ArchiveUnavailable: the archive of an older Lakebed must be searched once, and cannot be read.
        """
        known = self._documents
        return known if known.start == 0 else await self._search.completed(known, self.in_thread)

    async def read(
        self, start: int, end: int, promoted: frozenset[str] | None = None, *, rows: int = 250_000
    ) -> AsyncIterator[pa.Table]:
        """Yield exactly the events `[start, end)`, in order, in tables of at most `rows`: base, then promoted columns.

        Only events that were erased from the archive are missing. Events are read from the log if it still has them,
        else from the archive. No file is deleted before the iteration ends; `contextlib.aclosing` ends it early.

        Args:
            start: seq of the first event.
            end: seq after the last event.
            promoted: names of the promoted columns; None means all.
            rows: limit of rows in a table.

        Raises:
            ValueError: `end` lies beyond the log.
            ArchiveConflict: an event that was not erased is in neither tier.
        """
        columns = tuple(column for column in self.promotions if promoted is None or column.name in promoted)
        with self._pipeline.view() as log:
            if end > log.end_seq:
                raise ValueError(f"the log ends at {log.end_seq}, before the end of the range, {end}")
            if start < min(log.start_seq, end):
                async with self._archive.pin() as archived:
                    check_gap(log, archived, min(log.start_seq, end) - 1)
                    async for table in self._read_archive(archived, start, min(log.start_seq, end), rows, columns):
                        yield table
            for file in log.files:
                low, high = max(start, file.first_seq), min(end, file.end_seq)
                if low < high:
                    whole = await self.in_thread(partial(self._read_file, file, columns))
                    for first in range(low, high, rows):
                        last = min(first + rows, high)
                        yield _checked(whole.slice(first - file.first_seq, last - first), first, last)
            tail_start = log.end_seq - log.tail.num_rows
            for first in range(max(start, tail_start), end, rows):
                last = min(first + rows, end)
                piece = log.tail.slice(first - tail_start, last - first)
                yield _checked(await self.in_thread(partial(self._promoted, piece, columns)), first, last)

    async def is_archived(self, start: int) -> bool:
        """Whether archive and log agree on all positions from `start` on that both have. Ignores erased events."""
        with self._pipeline.view() as log:
            async with self._archive.pin() as archived:
                high = min(archived.watermark, log.end_seq)
                for first in range(max(start, log.start_seq), high, _COMPARED):
                    last = min(first + _COMPARED, high)
                    ids = [table["message_id"].to_pylist() async for table in self.read(first, last, frozenset())]
                    own = list(itertools.chain.from_iterable(ids))
                    async for table in self._read_archive(archived, first, last, _COMPARED, ()):
                        rows = zip(table["seq"].to_pylist(), table["message_id"].to_pylist(), strict=True)
                        if any(own[seq - first] != message_id for seq, message_id in rows):
                            return False
        return True

    async def _read_archive(
        self, view: ArchiveView, start: int, end: int, rows: int, promoted: tuple[Promotion, ...]
    ) -> AsyncIterator[pa.Table]:
        """Yield events of archive files, sorted by seq in windows to bound memory: the files are sorted by time."""
        parts = self.archive_parts(view.files, view.watermark)
        whole = sum(file.rows for file in view.files) == view.watermark  # else unknown events were erased
        for first in range(start, end, rows):
            last = min(first + rows, end)
            window = tuple(part for part in parts if part.first_seq < last and first < part.end_seq)
            table = await self.in_thread(partial(self._window, window, first, last, promoted))
            yield _checked(table, first, last) if whole else table

    def _window(self, parts: tuple[Part, ...], first: int, last: int, promoted: tuple[Promotion, ...]) -> pa.Table:
        schema = schema_of(promoted)
        if not parts:
            return schema.empty_table()
        relation = Relation(parts, schema.empty_table(), promoted)
        names = ", ".join(map(quoted, columns_of(promoted)))
        sql = f"SELECT {names} FROM ({relation.sql()}) WHERE seq >= {first} AND seq < {last} ORDER BY seq"
        return self._read(sql).cast(schema)

    def _read_file(self, file: SealedFile, promoted: tuple[Promotion, ...]) -> pa.Table:
        names = [*BASE_COLUMNS, *(column.name for column in promoted if column.name in file.columns)]
        return self._promoted(read_sealed(file.path, names), promoted)

    def _promoted(self, table: pa.Table, promoted: tuple[Promotion, ...]) -> pa.Table:
        if not promoted and table.schema.equals(SCHEMA):
            return table
        schema = schema_of(promoted)
        return with_promoted(table, promoted, self._engine).select(schema.names).cast(schema)

    def archive_parts(self, files: tuple[DataFile, ...], end: int) -> tuple[Part, ...]:
        """The parts of the archive's `files` with `seq < end`. They are cached until the next archive run."""
        known_files, known_end, parts = self._parts
        if known_files is not files or known_end != end:
            parts = tuple(archive_parts(files, end))
            self._parts = files, end, parts
        return parts

    async def position(self, as_of_us: int, log: LogView, archived: ArchiveView) -> int:
        """As `resolve`, for the pinned log and archive. Reads a column of a file only if its bounds do not suffice."""
        known = self._positions.get(as_of_us)
        if known is None:
            known = await self._find_position(as_of_us, log, archived)
            check_gap(log, archived, known)
            if len(self._positions) >= _CACHED_POSITIONS:
                self._positions.pop(next(iter(self._positions)))
            self._positions[as_of_us] = known
        return known

    async def _find_position(self, as_of_us: int, log: LogView, archived: ArchiveView) -> int:
        received = log.tail.column("received_at")
        if len(received) and _us(received, 0) <= as_of_us:
            return log.end_seq - len(received) + _count_until(received, as_of_us)
        for file in reversed(log.files):
            if file.first_received <= as_of_us:
                if file.last_received <= as_of_us:
                    return file.end_seq
                received = await self.in_thread(partial(_received, file.path))
                return file.first_seq + _count_until(received, as_of_us)
        files = [file for file in archived.files if file.min_received <= as_of_us]
        sure = max((file.last_seq + 1 for file in files if file.max_received <= as_of_us), default=0)
        doubtful = [file.path for file in files if file.max_received > as_of_us and file.last_seq >= sure]
        return max(sure, await self._last_seq(doubtful, as_of_us) + 1) if doubtful else sure

    async def _last_seq(self, paths: list[str], as_of_us: int) -> int:
        sql = (
            f"SELECT coalesce(max(seq), -1) AS seq FROM {read_parquet(paths)} WHERE received_at <= make_timestamptz(?)"
        )
        table = await self.in_thread(lambda: self._read(sql, [as_of_us]))
        return int(table.column("seq")[0].as_py())

    def _read(self, sql: str, parameters: list[Any] | None = None) -> pa.Table:
        with readable():
            return self._engine.arrow(sql, parameters)

    def in_thread(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run blocking `work` in a thread, outside the event loop."""
        return self._worker.run(work)

    def close(self) -> None:
        """End the threads. No read may be under way."""
        self._worker.close()


class Cut:
    """The events of one query, held unchanged. Use the cut with `async with`; its fields are set inside.

    Attributes:
        end_seq: exactly the events with `seq < end_seq` belong to the cut.
        watermark: events with a lower seq are read from the archive.
        as_of_us: the moment of the query; None means the present.
    """

    end_seq: int
    watermark: int

    def __init__(
        self,
        history: EventHistory,
        pipeline: Pipeline,
        archive: Archive,
        *,
        as_of_us: int | None,
        snapshot: int | str | None,
    ) -> None:
        self.as_of_us = as_of_us
        self._history = history
        self._pipeline = pipeline
        self._archive = archive
        self._snapshot = snapshot
        self._parts: tuple[Part, ...] = ()
        self._tail = SCHEMA.empty_table()
        self._documents = DocumentPositions()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Pin log and archive. Raises SnapshotExpired."""
        async with AsyncExitStack() as stack:
            await (self._pin_now(stack) if self._snapshot is None else self._pin_snapshot(stack, self._snapshot))
            self._documents = await self._history.documents()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _pin_snapshot(self, stack: AsyncExitStack, snapshot: int | str) -> None:
        archived = await stack.enter_async_context(self._archive.pin(snapshot))
        self.watermark = self.end_seq = archived.watermark
        self._parts = self._history.archive_parts(archived.files, self.end_seq)

    async def _pin_now(self, stack: AsyncExitStack) -> None:
        if self.as_of_us is not None:
            await self._pipeline.settle(self.as_of_us)
        log = stack.enter_context(self._pipeline.view())  # before the archive: see the docstring of this file
        archived = await stack.enter_async_context(self._archive.pin())
        self.watermark = archived.watermark
        self.end_seq = max(log.end_seq, archived.watermark)
        if self.as_of_us is not None:
            self.end_seq = await self._history.position(self.as_of_us, log, archived)
        check_gap(log, archived, self.end_seq)
        self._parts = (
            *self._history.archive_parts(archived.files, min(self.end_seq, self.watermark)),
            *log_parts(log.files, self.watermark, self.end_seq),
        )
        tail_start = log.end_seq - log.tail.num_rows
        low, high = max(self.watermark, tail_start), min(self.end_seq, log.end_seq)
        self._tail = log.tail.slice(low - tail_start, max(high - low, 0)) if low < high else log.tail.slice(0, 0)

    def relation(self, bounds: Sequence[Bounds] = (UNBOUNDED,), *, documents: bool = False) -> Relation:
        """The events for a query that reads only timestamps in one of `bounds`. Only whole files are left out.

        Use it while the cut is open.

        Args:
            bounds: bounds of the query.
            documents: whether to return instead all rows of the files that have documents.
        """
        tail, known = self._tail, self._documents
        if documents:
            everything = Relation(self._parts, tail, self._history.promotions, known)
            parts = tuple(part for part in self._parts if everything.documents_in(part))
            return Relation(parts, tail, self._history.promotions)
        if tail.num_rows and known.within(tail["seq"][0].as_py(), self.end_seq):
            tail = without_documents(tail)
        if UNBOUNDED in bounds:
            return Relation(self._parts, tail, self._history.promotions, known)
        parts = tuple(part for part in self._parts if _overlap(bounds, part.min_timestamp, part.max_timestamp))
        if tail.num_rows:
            import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

            extremes = pc.min_max(tail.column("timestamp").cast(pa.int64())).as_py()
            tail = tail if _overlap(bounds, extremes["min"], extremes["max"]) else tail.slice(0, 0)
        return Relation(parts, tail, self._history.promotions, known)


def _overlap(bounds: Sequence[Bounds], low_us: int, high_us: int) -> bool:
    return any(span.overlaps(low_us, high_us) for span in bounds)


def check_gap(log: LogView, archived: ArchiveView, end: int) -> None:
    """Raise ArchiveConflict if events before `end` are missing between archive and log.

    Events are missing if the archive was lost, or was restored from an older backup than the log.
    """
    if archived.watermark < log.start_seq and end >= archived.watermark:
        raise ArchiveConflict(
            f"events {archived.watermark} to {log.start_seq} are in neither log nor archive",
            hint="The archive is older than the log: restore it from the backup that belongs to this log",
            start=archived.watermark,
            end=log.start_seq,
        )


def _received(path: Path) -> pa.ChunkedArray:
    return read_sealed(path, ["received_at"]).column("received_at")


def _us(received: pa.ChunkedArray, index: int) -> int:
    return int(received[index].value)


def _count_until(received: pa.ChunkedArray, as_of_us: int) -> int:
    """The number of times at or before `as_of_us` in `received`, which ascends."""
    return bisect.bisect_right(range(len(received)), as_of_us, key=lambda index: _us(received, index))


def _checked(table: pa.Table, first: int, last: int) -> pa.Table:
    """Return `table` if it has exactly the events `[first, last)` in order; else raise ArchiveConflict."""
    seqs = table.column("seq")
    if table.num_rows != last - first or (seqs[0].as_py(), seqs[-1].as_py()) != (first, last - 1):
        raise ArchiveConflict(
            f"log and archive have {table.num_rows} rows for the {last - first} events from {first} to {last - 1}",
            hint="Run check(); restore the missing files from a backup",
            start=first,
            end=last,
        )
    return table
