"""Brings all rollups of one object up to date from the log, and reads them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeVar, cast

import pyarrow as pa

from lakebed.clock import DAY_US
from lakebed.concurrency import Worker
from lakebed.errors import InvalidRollup, LakebedError, LogBehind, ObjectClosed
from lakebed.events.documents import DocumentPositions, no_documents, without_documents
from lakebed.events.promotions import Promotion, schema_of
from lakebed.rollups.buckets import Chunk, RowCache, chunked, days_of, joined
from lakebed.rollups.check import EVENT_COUNTS, count_problems
from lakebed.rollups.fold import OTHER_KEY, Fold, PartialState, TextIds, consumer_of, partials
from lakebed.rollups.measure import PeopleIndex, unions
from lakebed.rollups.older_state import renew
from lakebed.rollups.rollup import DAILY_METRICS, HOURLY_EVENTS, BuiltInRollup, Rollup, distinct_names
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.storage import Storage, Transaction

__all__ = ["Reader", "Rollups"]

T = TypeVar("T")
Reader = Callable[[int, int, frozenset[str]], AsyncIterator[pa.Table]]

_ALWAYS = (-(1 << 63), (1 << 63) - 1)


class Rollups:
    """The rollups of one object, and the consumers of its log that compute them. No rollup counts documents.

    State and checkpoint of a rollup are written in one transaction for each table that `read` yields. After any crash
    the rows are those of the events before the checkpoint, each counted once.

    Args:
        storage: L2. It must be open as long as this object is.
        rollups: rollups of the object, beside `hourly_events` and `daily_metrics`.
        promotions: promoted columns in the tables of `read`.
        engine: computes partial states.
        read: yields all events of [start, end) in order of seq, with at least the promoted columns named.
        settings: for `rollup_max_groups`.
        people: awaited for the present mapping of identities to people. None means that every identity is a person.
        documents: awaited for the positions of documents. None means that there are no documents.
        known_documents: positions of documents known without a search. Tables outside their range are searched.

    Raises:
        InvalidRollup: a declaration is invalid. Raised here or by `open`.
    """

    def __init__(
        self,
        storage: Storage,
        rollups: Sequence[Rollup],
        promotions: Sequence[Promotion],
        engine: SqlEngine,
        read: Reader,
        settings: Settings,
        people: Callable[[], Awaitable[PeopleIndex]] | None = None,
        documents: Callable[[], Awaitable[DocumentPositions]] | None = None,
        known_documents: DocumentPositions | None = None,
    ) -> None:
        self.rollups = (HOURLY_EVENTS, DAILY_METRICS, *rollups)
        by_name = {promotion.name: promotion for promotion in promotions}
        self._folds = {
            rollup.name: Fold(rollup, by_name, settings.rollup_max_groups) for rollup in distinct_names(self.rollups)
        }
        self._storage = storage
        self._promotions = tuple(promotions)
        self._engine = engine
        self._read = read
        self._people = people
        self._documents = documents or no_documents
        self._known_documents = known_documents
        self._older: list[str] = []  # rollups whose state an older Lakebed wrote: see older_state.py
        self._numbers: dict[str, int] = {}  # ids in storage
        self._open = False
        self._ids = TextIds(self._in_thread)
        self._cache = RowCache()
        self._locks = {name: asyncio.Lock() for name in self._folds}  # one catch-up of a rollup at a time
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker = Worker(f"rollup-{storage.path.parent.name}")

    async def open(self) -> None:
        """Compare the declarations with the stored ones. Restart new and changed rollups at 0, drop removed ones.

        Raises:
            InvalidRollup: DuckDB cannot compute a rollup. Nothing was changed.
            StorageUnavailable: nothing was changed.
        """
        self._worker = Worker(f"rollup-{self._storage.path.parent.name}")
        stored = await self._storage.stored_rollups()
        known = {name: rollup.fingerprint for name, rollup in stored.items()}
        self._older = [f.name for f in self._folds.values() if known.get(f.name) == f.older_fingerprint]
        fresh = [f for f in self._folds.values() if known.get(f.name) not in (f.fingerprint, f.older_fingerprint)]
        # Built-in rollups need no check, and an object must open fast.
        if unchecked := [fold for fold in fresh if not isinstance(fold.rollup, BuiltInRollup)]:
            nothing = schema_of(self._promotions).empty_table()
            _, errors = await self._worker.run(functools.partial(partials, self._engine, unchecked, nothing))
            for error in errors.values():
                raise error

        async def redefine(tx: Transaction) -> None:
            for name in [*(stored.keys() - self._folds.keys()), *(fold.name for fold in fresh)]:
                await tx.forget(name)
                await tx.drop_checkpoint(consumer_of(name))
            for fold in fresh:
                await tx.define(fold.name, fold.fingerprint)

        if fresh or stored.keys() - self._folds.keys():
            await self._storage.transact(redefine)
            stored = await self._storage.stored_rollups()
        self._numbers = {name: stored[name].id for name in self._folds}
        self._open = True

    async def close(self) -> None:
        """Complete the transaction of the current table, stop, and end the thread. Idempotent."""
        self._open = False
        self._cache = RowCache()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._worker.close()

    # Catching up

    async def catch_up(self, end: int, name: str | None = None) -> int:
        """Add all events with `seq < end` that the rollups do not have yet.

        Concurrent calls share the work. If a caller is cancelled, the work continues for the other callers.

        Args:
            end: at most the log's `next_seq`.
            name: the rollup that is needed. It does not wait for another rollup that is computed from the start.

        Returns:
            The number of events that the rollup furthest behind had to add.

        Raises:
            StorageUnavailable: committed tables stay, the rest is rolled back. Another call continues from there.
            InvalidRollup: DuckDB failed on the events of one rollup. The other rollups are up to date.
            LogBehind: `read` did not yield all events.
        """
        wanted = list(self._folds) if name is None else [self._fold(name).name]
        task = asyncio.ensure_future(self._catch_up(end, wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _catch_up(self, end: int, wanted: Sequence[str]) -> int:
        failed: dict[str, LakebedError] = {}
        first = end
        if self._older:
            await self._renew_older_state()
        while True:
            positions = await self._positions()
            behind = [positions[name] for name in wanted if name not in failed and positions[name] < end]
            if not behind:
                break
            start = min(behind)
            first = min(first, start)
            stop = min(end, *(position for position in positions.values() if position > start), end)
            names = [name for name in self._folds if positions[name] == start and name not in failed]
            await self._fold_range(names, start, stop, failed)
        for name in wanted:
            if name in failed:
                raise failed[name]
        return end - first

    async def _renew_older_state(self) -> None:
        documents = await self._documents()
        async with self._alone(self._older):
            names = self._older
            self._cache.begin_change(names)
            try:
                await renew(self._storage, [self._folds[name] for name in names], await self._positions(), documents)
                self._numbers = {name: rollup.id for name, rollup in (await self._storage.stored_rollups()).items()}
                self._older = []
            finally:
                self._cache.clear(names)

    async def _fold_range(self, names: list[str], start: int, stop: int, failed: dict[str, LakebedError]) -> None:
        async with self._alone(names):
            positions = await self._positions()
            if any(positions[name] != start for name in names):
                return  # another call was faster: the caller checks again
            position = start
            promoted = frozenset[str]().union(*(self._folds[name].promoted for name in names))
            async with aclosing(cast("AsyncGenerator[pa.Table, None]", self._read(start, stop, promoted))) as tables:
                async for table in tables:
                    position = await self._fold_table(names, table, position, failed)
                    names = [name for name in names if name not in failed]
                    if not names:
                        return
            if position != stop:
                raise self._gap(position, stop)

    async def _fold_table(
        self, names: Sequence[str], table: pa.Table, start: int, failed: dict[str, LakebedError]
    ) -> int:
        self._assert_open()
        end: int = start + table.num_rows
        if table.num_rows == 0:
            return end
        first, last = table.column("seq")[0].as_py(), table.column("seq")[-1].as_py()
        if (first, last) != (start, end - 1):
            raise self._gap(start, end)
        known = self._known_documents
        if known is None or known.start > start or known.end < end or (known.seqs and known.within(start, end)):
            table = without_documents(table)
        folds = [self._folds[name] for name in names]
        partial_states, errors = await self._worker.run(functools.partial(partials, self._engine, folds, table))
        failed |= errors
        if partial_states:
            await self._commit(partial_states, start, end)
        return end

    async def _commit(self, partial_states: Mapping[str, PartialState], start: int, end: int) -> None:
        self._cache.begin_change(partial_states)
        try:
            ids, new, buckets = await self._storage.transact(lambda tx: self._merge(tx, partial_states, start, end))
        except BaseException:
            self._cache.clear(partial_states)
            raise
        await self._ids.committed(ids, new)
        for name in partial_states:
            self._cache.end_change(name, buckets[name])

    async def _merge(
        self, tx: Transaction, partial_states: Mapping[str, PartialState], start: int, end: int
    ) -> tuple[dict[str, int], list[str], dict[str, set[int]]]:
        """Merge states into storage. Returns the texts' ids, the texts looked up, and each rollup's changed buckets."""
        ids, new = await self._ids.of(tx, partial_states.values())
        for name, partial in partial_states.items():
            fold, number = self._folds[name], self._numbers[name]
            added, touched = await self._worker.run(fold.states, partial, ids)
            stored = await tx.groups(number, touched)
            grown = await self._worker.run(fold.buckets_with_new_groups, added, stored)
            counts = await tx.group_counts(number, grown, without=OTHER_KEY) if grown else {}
            await tx.put_groups(number, await self._worker.run(fold.merge, added, stored, counts))
            await tx.advance(fold.consumer, start, end)
        return ids, new, {name: {bucket for bucket, _ in partial.groups} for name, partial in partial_states.items()}

    # Answers

    async def table(self, name: str, start_us: int | None = None, end_us: int | None = None) -> pa.Table:
        """The rows whose bucket starts in [start_us, end_us), by bucket and dimensions, up to the checkpoint.

        Sums are int64, decimal128(38, 9) or double, like their values; the column is wider if a sum does not fit.
        """
        fold, number = self._fold(name), self._number(name)
        start, end = _range(start_us, end_us)
        days = days_of(start, end)
        people = await self._people_of(fold)
        chunks = None if days is None else await self._chunks(fold, number, days, people)
        if days is not None and chunks is not None:
            try:
                return joined([chunks[day] for day in days], start, end)
            except pa.ArrowInvalid:  # on some days only, a sum was too large for its type
                pass
        return (await self._rows(fold, number, start, end, people))[1]

    async def _chunks(
        self, fold: Fold, number: int, days: range, people: PeopleIndex | None
    ) -> dict[int, Chunk] | None:
        """The rows of these days, all of one state; None if rows changed while they were read."""
        variant = 0 if people is None else people.version
        version, chunks = self._cache.version(fold.name), self._cache.get(fold.name, days, variant)
        missing = [day for day in days if day not in chunks]
        if missing:
            low, high = missing[0] * DAY_US, (missing[-1] + 1) * DAY_US
            buckets, table = await self._rows(fold, number, low, high, people)
            if not self._cache.is_unchanged(fold.name, version):
                return None
            read = chunked(buckets, table, missing)
            self._cache.put(fold.name, read, variant)
            chunks |= read
        return chunks

    async def _rows(
        self, fold: Fold, number: int, start: int, end: int, people: PeopleIndex | None
    ) -> tuple[list[int], pa.Table]:
        """The buckets of the groups in [start, end), and the public rows of these groups."""
        if people is None:
            states = await self._storage.states(number, start, end)
            return [bucket for bucket, _, _ in states], await self._worker.run(fold.table, states)
        groups = await self._storage.groups(number, start, end)
        return [group[0] for group in groups], await self._worker.run(fold.people_table, groups, people)

    async def _people_of(self, fold: Fold) -> PeopleIndex | None:
        """The mapping of identities to people; None if the rollup counts no people or nothing is mapped."""
        people = await self._people() if self._people is not None and fold.people else None
        return people if people is not None and people.size else None

    def counts_people(self, name: str) -> bool:
        """Whether a rollup has a measure that counts people."""
        return bool(self._fold(name).people)

    async def distinct(self, name: str, measure: str, windows: Sequence[tuple[int, int]]) -> list[int]:
        """For each window [start_us, end_us), the number of distinct values in all buckets that start in it.

        Raises:
            InvalidRollup: `measure` is not a `distinct` measure of this rollup.
        """
        start, end = min((start for start, _ in windows), default=0), max((end for _, end in windows), default=0)
        return await self.bitmaps(name, measure, start, end, functools.partial(unions, windows=windows)) or []

    async def bitmaps(
        self,
        name: str,
        measure: str,
        start_us: int | None,
        end_us: int | None,
        compute: Callable[[Iterator[tuple[int, Any]]], T],
        *,
        max_bytes: int | None = None,
    ) -> T | None:
        """Call `compute` in a thread, with each group's bucket start and bitmap by bucket. Returns its result.

        Args:
            name: name of the rollup.
            measure: name of a `distinct` measure.
            start_us: buckets that start before it are left out; None means no bound, like `end_us`.
            end_us: exclusive.
            compute: a function of (bucket start, bitmap) pairs.
            max_bytes: limit of bytes for the bitmaps. If they need more, the result is None.

        Raises:
            InvalidRollup: `measure` is not a `distinct` measure of this rollup.
        """
        fold = self._fold(name)
        if not getattr(fold.measures.get(measure), "identified", False):
            raise InvalidRollup(f"{measure!r} is not a distinct() measure of rollup {name}", name=name)
        number, within = self._number(name), _range(start_us, end_us)
        if max_bytes is not None and await self._storage.sketch_bytes(number, *within) > max_bytes:
            return None
        rows = await self._storage.sketches(number, *within)
        people = await self._people_of(fold) if measure in fold.people else None
        return await self._worker.run(lambda: compute(fold.bitmaps(measure, rows, people)))

    async def checkpoint(self) -> int:
        """The durable seq before which every rollup has counted all events."""
        return min((await self._positions()).values())

    async def check(self, end: int) -> list[str]:
        """Compare checkpoints and built-in rollups with `end`, the log's `next_seq`. Returns problems as sentences."""
        documents = await self._documents()
        async with self._alone(EVENT_COUNTS):
            positions = await self._positions()
            counts = {name: (await self.table(name))[column] for name, column in EVENT_COUNTS.items()}
        return count_problems(positions, end, counts, documents)

    # The parts

    def _fold(self, name: str) -> Fold:
        try:
            return self._folds[name]
        except KeyError:
            raise InvalidRollup(f"there is no rollup {name!r}", hint=f"There are {', '.join(self._folds)}") from None

    def _number(self, name: str) -> int:
        self._assert_open()
        return self._numbers[name]

    def _in_thread(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return self._worker.run(functools.partial(function, *args))  # `open` replaces the worker

    def _assert_open(self) -> None:
        if not self._open:
            raise ObjectClosed("the rollups are not open")

    async def _positions(self) -> dict[str, int]:
        # Read each time: after a commit with an unknown outcome, only the file is right.
        self._assert_open()
        stored = await self._storage.checkpoints()
        return {name: stored.get(fold.consumer, 0) for name, fold in self._folds.items()}

    @asynccontextmanager
    async def _alone(self, names: Iterable[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for name in sorted(names):  # sorted, so that two calls cannot deadlock
                await stack.enter_async_context(self._locks[name])
            yield

    def _gap(self, start: int, end: int) -> LogBehind:
        return LogBehind(f"some events from {start} to {end} are missing", path=self._storage.path, offset=start)


def _range(start_us: int | None, end_us: int | None) -> tuple[int, int]:
    return _ALWAYS[0] if start_us is None else start_us, _ALWAYS[1] if end_us is None else end_us
