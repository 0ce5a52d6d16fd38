"""All rollups of one object: kept up to date from the log, and read."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeVar, cast

import pyarrow as pa

from lakebed.errors import InvalidRollup, LakebedError, LogBehind, ObjectClosed
from lakebed.events.documents import DocumentPositions, no_documents, without_documents
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import Promotion
from lakebed.rollups.check import EVENT_COUNTS, count_problems
from lakebed.rollups.daily import DAILY_METRICS
from lakebed.rollups.fold import OTHER_KEY, Fold, consumer_of
from lakebed.rollups.hourly import HOURLY_EVENTS
from lakebed.rollups.older_state import renew
from lakebed.rollups.partial_state import PartialState, partials
from lakebed.rollups.people_index import PeopleIndex, bitmaps_of, people_table, unions
from lakebed.rollups.rollup import BuiltInRollup, Rollup, distinct_names
from lakebed.rollups.row_cache import DAY_US, Chunk, RowCache, chunked, days_of, joined
from lakebed.rollups.text_ids import TextIds
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.storage import Storage
from lakebed.tiers.storage.transaction import Transaction

__all__ = ["Reader", "Rollups"]

T = TypeVar("T")
Reader = Callable[[int, int, frozenset[str]], AsyncIterator[pa.Table]]

_ALWAYS = (-(1 << 63), (1 << 63) - 1)


class Rollups:
    """The rollups of one object, and the consumers of its log that keep them. Documents count in none.

    State and checkpoint of a rollup are in one transaction, one for each table that `read` gives: whatever happens,
    the rows equal those of the events before the checkpoint, each counted once.

    Args:
        storage: open for as long as this is.
        rollups: the object's own; `hourly_events` and `daily_metrics` are always there.
        promotions: the promoted columns that `read`'s tables have beside the base ones.
        engine: folds with it.
        read: gives the events of [start, end) in order of seq, all of them, with those promoted columns at least.
        settings: for `rollup_max_groups`.
        people: says who is who now; without it every identity is a person.
        documents: gives the positions of documents; without it there are none.

    Raises:
        InvalidRollup: from here and from `open`.
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
        self._older: list[str] = []  # rollups whose state is an older Lakebed's: see older_state.py
        self._numbers: dict[str, int] = {}  # ids in storage
        self._open = False
        self._ids = TextIds(self._in_thread)
        self._shelf = RowCache()
        self._locks = {name: asyncio.Lock() for name in self._folds}  # one fold of a rollup at a time
        self._tasks: set[asyncio.Task[Any]] = set()
        self._executor: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Compare the declarations with what is stored: new and changed ones start at 0, removed ones are dropped.

        Raises:
            InvalidRollup: DuckDB cannot compute one. Nothing was changed.
            StorageUnavailable: nothing was changed.
        """
        stored = await self._storage.stored_rollups()
        known = {name: rollup.fingerprint for name, rollup in stored.items()}
        self._older = [f.name for f in self._folds.values() if known.get(f.name) == f.older_fingerprint]
        fresh = [f for f in self._folds.values() if known.get(f.name) not in (f.fingerprint, f.older_fingerprint)]
        # The built-in ones need no proof, and waking an object must be fast.
        if doubtful := [fold for fold in fresh if not isinstance(fold.rollup, BuiltInRollup)]:
            fields = [pa.field(promotion.name, promotion.arrow_type) for promotion in self._promotions]
            nothing = pa.schema([*SCHEMA, *fields]).empty_table()
            _, errors = await self._in_thread(partials, self._engine, doubtful, nothing)
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
        """Stop after the table under way; its transaction ends. No thread is left. May be called twice."""
        self._open = False
        self._shelf = RowCache()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    # Keeping up

    async def catch_up(self, end: int, name: str | None = None) -> int:
        """Fold all events with `seq < end` that are not folded yet.

        Args:
            end: at most the log's `next_seq`.
            name: the rollup that is needed; another one that has to be computed from the start does not hold it up.

        Calls at the same time share the work. If the caller is cancelled it goes on, for the others and for the next.

        Returns:
            How many events the rollup that was furthest behind had to take in.

        Raises:
            StorageUnavailable: what was committed stays, the rest was rolled back; calling again goes on from there.
            InvalidRollup: DuckDB failed on the events of one rollup; the other ones are up to date.
            LogBehind: `read` did not give all of the events.
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
            at = await self._positions()
            behind = [at[name] for name in wanted if name not in failed and at[name] < end]
            if not behind:
                break
            start = min(behind)
            first = min(first, start)
            stop = min(end, *(position for position in at.values() if position > start), end)
            cohort = [name for name in self._folds if at[name] == start and name not in failed]
            await self._fold_range(cohort, start, stop, failed)
        for name in wanted:
            if name in failed:
                raise failed[name]
        return end - first

    async def _renew_older_state(self) -> None:
        documents = await self._documents()
        async with self._alone(self._older):
            names = self._older
            self._shelf.changing(names)
            try:
                await renew(self._storage, [self._folds[name] for name in names], await self._positions(), documents)
                self._numbers = {name: one.id for name, one in (await self._storage.stored_rollups()).items()}
                self._older = []
            finally:
                self._shelf.doubtful(names)

    async def _fold_range(self, cohort: list[str], start: int, stop: int, failed: dict[str, LakebedError]) -> None:
        async with self._alone(cohort):
            at = await self._positions()
            if any(at[name] != start for name in cohort):
                return  # another call was faster: look again at what is left to do
            position = start
            promoted = frozenset[str]().union(*(self._folds[name].promoted for name in cohort))
            async with aclosing(cast("AsyncGenerator[pa.Table, None]", self._read(start, stop, promoted))) as tables:
                async for table in tables:
                    position = await self._fold_table(cohort, table, position, failed)
                    cohort = [name for name in cohort if name not in failed]
                    if not cohort:
                        return
            if position != stop:
                raise self._gap(position, stop)

    async def _fold_table(
        self, cohort: Sequence[str], table: pa.Table, start: int, failed: dict[str, LakebedError]
    ) -> int:
        self._assert_open()
        end: int = start + table.num_rows
        if table.num_rows == 0:
            return end
        first, last = table.column("seq")[0].as_py(), table.column("seq")[-1].as_py()
        if (first, last) != (start, end - 1):
            raise self._gap(start, end)
        events = without_documents(table)
        found, errors = await self._in_thread(partials, self._engine, [self._folds[name] for name in cohort], events)
        failed |= errors
        if found:
            await self._commit(found, start, end)
        return end

    async def _commit(self, found: Mapping[str, PartialState], start: int, end: int) -> None:
        self._shelf.changing(found)
        try:
            ids, new, buckets = await self._storage.transact(lambda tx: self._merge(tx, found, start, end))
        except BaseException:
            self._shelf.doubtful(found)
            raise
        await self._ids.committed(ids, new)
        for name in found:
            self._shelf.changed(name, buckets[name])

    async def _merge(
        self, tx: Transaction, found: Mapping[str, PartialState], start: int, end: int
    ) -> tuple[dict[str, int], list[str], dict[str, set[int]]]:
        """The ids of the batch's texts, those not known before, and the buckets that it changed in each rollup."""
        ids, new = await self._ids.of(tx, found.values())
        for name, partial in found.items():
            fold, number = self._folds[name], self._numbers[name]
            added, touched = await self._in_thread(fold.taken, partial, ids)
            stored = await tx.groups(number, touched)
            growing = await self._in_thread(fold.growing, added, stored)
            counts = await tx.group_counts(number, growing, without=OTHER_KEY) if growing else {}
            await tx.put_groups(number, await self._in_thread(fold.folded, added, stored, counts))
            await tx.advance(fold.consumer, start, end)
        return ids, new, {name: {bucket for bucket, _ in partial.groups} for name, partial in found.items()}

    # Answers

    async def table(self, name: str, start_us: int | None = None, end_us: int | None = None) -> pa.Table:
        """The rows whose bucket starts in [start_us, end_us), as far as they are folded, by bucket and dimensions.

        Sums are int64, decimal128(38, 9) or double as what is summed; one too large for its type makes the column a
        wider one.
        """
        fold, number = self._fold(name), self._number(name)
        start, end = _range(start_us, end_us)
        days = days_of(start, end)
        people = await self._who(fold)
        chunks = None if days is None else await self._chunks(fold, number, days, people)
        if days is not None and chunks is not None:
            try:
                return joined([chunks[day] for day in days], start, end)
            except pa.ArrowInvalid:  # a sum was too large for its type on some days only
                pass
        return (await self._rows(fold, number, start, end, people))[1]

    async def _chunks(
        self, fold: Fold, number: int, days: range, people: PeopleIndex | None
    ) -> dict[int, Chunk] | None:
        """The rows of these days, all of one state; None when they changed meanwhile."""
        variant = 0 if people is None else people.version
        version, chunks = self._shelf.version(fold.name), self._shelf.held(fold.name, days, variant)
        missing = [day for day in days if day not in chunks]
        if missing:
            low, high = missing[0] * DAY_US, (missing[-1] + 1) * DAY_US
            buckets, table = await self._rows(fold, number, low, high, people)
            if not self._shelf.steady(fold.name, version):
                return None
            read = chunked(buckets, table, missing)
            self._shelf.put(fold.name, read, variant)
            chunks |= read
        return chunks

    async def _rows(
        self, fold: Fold, number: int, start: int, end: int, people: PeopleIndex | None
    ) -> tuple[list[int], pa.Table]:
        """The buckets of the groups in [start, end), and their public rows."""
        if people is None:
            states = await self._storage.states(number, start, end)
            return [bucket for bucket, _, _ in states], await self._in_thread(fold.table, states)
        groups = await self._storage.groups(number, start, end)
        return [group[0] for group in groups], await self._in_thread(people_table, fold, groups, people)

    async def _who(self, fold: Fold) -> PeopleIndex | None:
        """Who is who, where that makes a difference."""
        people = await self._people() if self._people is not None and fold.people else None
        return people or None

    def counts_people(self, name: str) -> bool:
        """Whether a rollup has a measure that depends on who is who."""
        return bool(self._fold(name).people)

    async def distinct(self, name: str, measure: str, windows: Sequence[tuple[int, int]]) -> list[int]:
        """How many distinct values there were in all buckets that start in each [start_us, end_us).

        Raises:
            InvalidRollup: `measure` is no `distinct` of this rollup.
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
        most_bytes: int | None = None,
    ) -> T | None:
        """What `compute`, in a thread, makes of the start and the distinct values of each group, by bucket.

        Args:
            most_bytes: None is the answer if more would have to be in memory.

        Raises:
            InvalidRollup: as `distinct`.
        """
        fold = self._fold(name)
        if not getattr(fold.measures.get(measure), "identified", False):
            raise InvalidRollup(f"{measure!r} of rollup {name} counts nothing distinct", name=name)
        number, within = self._number(name), _range(start_us, end_us)
        if most_bytes is not None and await self._storage.sketch_bytes(number, *within) > most_bytes:
            return None
        rows = await self._storage.sketches(number, *within)
        people = await self._who(fold) if measure in fold.people else None
        return await self._in_thread(lambda: compute(bitmaps_of(fold, measure, rows, people)))

    async def checkpoint(self) -> int:
        """Durable: events before it are in every rollup."""
        return min((await self._positions()).values())

    async def check(self, end: int) -> list[str]:
        """Problems, as sentences. Reads all of the built-in rollups.

        Args:
            end: the log's `next_seq`.
        """
        documents = await self._documents()
        async with self._alone(EVENT_COUNTS):
            at = await self._positions()
            counts = {name: (await self.table(name))[column] for name, column in EVENT_COUNTS.items()}
        return count_problems(at, end, counts, documents)

    # The parts

    def _fold(self, name: str) -> Fold:
        try:
            return self._folds[name]
        except KeyError:
            raise InvalidRollup(f"there is no rollup {name!r}", hint=f"There are {', '.join(self._folds)}") from None

    def _number(self, name: str) -> int:
        self._assert_open()
        return self._numbers[name]

    def _assert_open(self) -> None:
        if not self._open:
            raise ObjectClosed("the rollups are not open")

    async def _positions(self) -> dict[str, int]:
        # Asked each time: after a commit whose answer was lost, only the file knows.
        self._assert_open()
        stored = await self._storage.checkpoints()
        return {name: stored.get(fold.consumer, 0) for name, fold in self._folds.items()}

    @asynccontextmanager
    async def _alone(self, names: Iterable[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for name in sorted(names):  # sorted: two calls cannot wait for each other
                await stack.enter_async_context(self._locks[name])
            yield

    def _gap(self, start: int, end: int) -> LogBehind:
        return LogBehind(f"events {start} to {end} did not all come", path=self._storage.path, offset=start)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._executor is None:
            name = self._storage.path.parent.name
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"lakebed-rollup-{name}")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, functools.partial(function, *args))


def _range(start_us: int | None, end_us: int | None) -> tuple[int, int]:
    return _ALWAYS[0] if start_us is None else start_us, _ALWAYS[1] if end_us is None else end_us
