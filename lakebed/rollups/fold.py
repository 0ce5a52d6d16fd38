"""Computes rollups: makes partial states of a batch, merges them with stored states, and makes rows of states."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from lakebed.errors import InvalidRollup, LakebedError, StorageUnavailable
from lakebed.events.promotions import Promotion, quoted
from lakebed.rollups.buckets import bucket_dates, bucket_starts
from lakebed.rollups.column import PERSON, Column, column
from lakebed.rollups.expression import Expression
from lakebed.rollups.measure import PIECE, Measure, PeopleIndex, Texts, as_measure
from lakebed.rollups.rollup import OTHER, Rollup
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.identifiers import identify
from lakebed.tiers.storage.storage import Group, GroupRow, Transaction, damaged

if TYPE_CHECKING:
    import duckdb

__all__ = ["OTHER_KEY", "Fold", "PartialState", "TextIds", "consumer_of", "partials"]

# Part of the fingerprint: a new number computes all rollups again, after a change of their meaning.
_VERSION = 3
# State of this version counted documents, and is otherwise the same.
_WITH_DOCUMENTS = 2
# About 150 bytes each. Above this limit only the ids of the last batch stay in memory; the others are looked up again.
_IDS_IN_MEMORY = 250_000
OTHER_KEY = "*"  # real keys are JSON arrays
_TIME = pa.timestamp("us", tz="UTC")

# Errors of msgspec, Arrow, the sketch libraries and Lakebed on damaged bytes.
_UNREADABLE = (
    msgspec.MsgspecError,
    pa.ArrowException,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    StopIteration,
)

States = tuple[Any, ...]  # one state for each measure


class PartialState(msgspec.Struct):
    """The contribution of one batch to one rollup, before ids and stored states are known.

    Attributes:
        groups: the groups of the batch, in the order of their first events.
        columns: for each measure, its aggregates, one per group.
    """

    groups: list[Group]
    columns: list[pa.Array | Texts]


class Fold:
    """Computes one rollup. It is compiled for the object's promoted columns. Every method blocks.

    Args:
        rollup: the declaration.
        promotions: promoted columns by name.
        max_groups: limit of groups in a bucket, used if the rollup declares none.

    Raises:
        InvalidRollup: a measure does not fit the type of its column.
    """

    def __init__(self, rollup: Rollup, promotions: Mapping[str, Promotion], max_groups: int) -> None:
        self.rollup = rollup
        self.name = rollup.name
        self.consumer = consumer_of(rollup.name)
        self._bucket_column = rollup.bucket_column
        self.max_groups = rollup.max_groups or max_groups
        self.measures: dict[str, Measure] = {}
        for name, text in rollup.measures.items():
            expression = Expression.parse(text)
            self.measures[name] = as_measure(expression, _column(expression.column, promotions))
        # These count identities; several of them may be one person.
        self.people = tuple(
            name
            for name, text in rollup.measures.items()
            if (expression := Expression.parse(text)).function == "distinct" and expression.column == PERSON
        )
        self.sql = self._select([column(name, promotions).text for name in rollup.by])
        read = {*rollup.by, *(Expression.parse(text).column for text in rollup.measures.values())}
        # A condition may name any column. Without one, unused columns are not computed: that halves the cost.
        self.promoted = frozenset(promotions if rollup.where is not None else read & promotions.keys())
        self.fingerprint, self.older_fingerprint = map(self._fingerprint, (_VERSION, _WITH_DOCUMENTS))

    def _fingerprint(self, version: int) -> str:
        content = [version, self.sql, self.max_groups, dict(self.rollup.measures)]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    def _select(self, dimensions: Sequence[str]) -> str:
        columns = [f"{quoted(bucket_name(self.rollup))} AS b", *(f"{sql} AS d{i}" for i, sql in enumerate(dimensions))]
        keys = ", ".join(str(i + 1) for i in range(len(columns)))
        columns += [f"{measure.sql} AS m{i}" for i, measure in enumerate(self.measures.values())]
        where = f"WHERE (\n{self.rollup.where}\n)" if self.rollup.where is not None else ""
        # The order of first events decides which groups are kept, so that it does not depend on batches.
        return (
            f"SELECT {', '.join(columns)} FROM (SELECT *, coalesce(user_id, anonymous_id) AS {PERSON} FROM input) "
            f"{where} GROUP BY {keys} ORDER BY min(seq)"
        )

    def states(self, partial: PartialState, ids: Mapping[str, int]) -> tuple[dict[Group, States], list[Group]]:
        """The states of a batch's groups, in their order; and all groups whose stored states `merge` needs."""
        columns = [
            measure.states(values.identified(ids) if isinstance(values, Texts) else values)
            for values, measure in zip(partial.columns, self.measures.values(), strict=True)
        ]
        added: dict[Group, States] = dict(zip(partial.groups, zip(*columns, strict=True), strict=True))
        overflows = {(bucket, OTHER_KEY) for bucket, _ in added} if self.rollup.by else set()
        return added, [*added, *overflows]

    def buckets_with_new_groups(self, added: Iterable[Group], stored: Iterable[GroupRow]) -> set[int]:
        """The buckets that get a new group. The caller must count the groups in these buckets for `merge`."""
        if not self.rollup.by:
            return set()
        known = {(bucket, key) for bucket, key, _, _ in stored}
        return {group[0] for group in added if group not in known}

    def merge(
        self, added: Mapping[Group, States], stored: Iterable[GroupRow], counts: dict[int, int]
    ) -> list[GroupRow]:
        """Merge `added` into the stored states. Returns the changed rows.

        Args:
            added: states of a batch's groups, in the order of their first events. The states may be changed.
            stored: at least the rows of these groups; with dimensions, also of their buckets' overflow groups.
            counts: number of groups in each bucket with a new group. `merge` updates the numbers.
        """
        states = self._read(stored)
        changed: set[Group] = set()
        for group, more in added.items():
            place = group if group in states else self._place(group, counts)
            states[place] = self._merge_states(states[place], more) if place in states else more
            changed.add(place)
        return self._write(sorted(changed), states)

    def _place(self, group: Group, counts: dict[int, int]) -> Group:
        """The group that gets the states of a new group: the overflow group if the bucket is full, else `group`."""
        if not self.rollup.by:
            return group
        bucket = group[0]
        count = counts.get(bucket, 0)
        if count >= self.max_groups:
            return bucket, OTHER_KEY
        counts[bucket] = count + 1
        return group

    def _merge_states(self, states: States, added: States) -> States:
        pairs = zip(self.measures.values(), states, added, strict=True)
        return tuple([measure.merge(state, more) for measure, state, more in pairs])

    # Measure by measure, not group by group: an hour may have thousands of groups with one count each. And by index:
    # zip(*rows) makes an iterator for each row, so many that they start a full garbage collection of 40 ms.

    def _write(self, groups: Sequence[Group], states: Mapping[Group, States]) -> list[GroupRow]:
        columns: list[list[Any]] = []
        packed: list[list[bytes]] = []
        for index, measure in enumerate(self.measures.values()):
            pairs = [measure.write(states[group][index]) for group in groups]
            columns.append([value for value, _ in pairs])
            packed += [[sketch or b"" for _, sketch in pairs]] if measure.sketched else []
        encode = msgspec.json.Encoder().encode
        texts = [encode(row).decode() for row in zip(*columns, strict=True)]
        blobs = map(msgspec.msgpack.encode, zip(*packed, strict=True)) if packed else itertools.repeat(None, len(texts))
        return [(*group, text, blob) for group, text, blob in zip(groups, texts, blobs, strict=True)]

    def _read(self, stored: Iterable[GroupRow]) -> dict[Group, States]:
        with self._intact():
            groups, texts, packed = [], [], []
            for bucket, key, text, sketches in stored:
                groups.append((bucket, key))
                texts.append(text)
                packed.append(_sketches(sketches))
            decoded, columns, sketched = _decode_all(texts), [], itertools.count()
            for index, measure in enumerate(self.measures.values()):
                own = next(sketched) if measure.sketched else None
                sketches_of = itertools.repeat(None) if own is None else (sketches[own] for sketches in packed)
                columns.append(list(map(measure.read, (row[index] for row in decoded), sketches_of)))
            return dict(zip(groups, zip(*columns, strict=True), strict=True))

    def sketch(self, measure: str, sketches: bytes) -> Any:
        """Read the state of one measure from the stored sketches of a group."""
        names = [name for name, candidate in self.measures.items() if candidate.sketched]
        with self._intact():
            return self.measures[measure].read(None, _sketches(sketches)[names.index(measure)])

    def bitmaps(
        self, measure: str, rows: Iterable[tuple[int, bytes]], people: PeopleIndex | None
    ) -> Iterator[tuple[int, Any]]:
        """Yield each row's bucket, and the bitmap of its distinct values, or of its people if `people` is set."""
        for bucket, sketches in rows:
            bitmap = self.sketch(measure, sketches)
            yield bucket, bitmap if people is None else people.people_of(bitmap)

    def people_table(self, groups: Sequence[GroupRow], people: PeopleIndex) -> pa.Table:
        """Make the public table of stored groups. Measures over identities count people in it."""
        table = self.table([(bucket, key, state) for bucket, key, state, _ in groups])
        for name in self.people:
            index = table.schema.get_field_index(name)
            bitmaps = [self.sketch(name, sketches or b"") for _, _, _, sketches in groups]
            counts = pa.array([len(people.people_of(bitmap)) for bitmap in bitmaps], pa.int64())
            table = table.set_column(index, table.schema.field(index), counts)
        return table

    def table(self, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
        """Make the public table of `(bucket, key, state)` rows."""
        with self._intact():
            return self._table(rows)

    def _table(self, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
        import numpy as np  # only objects that run queries pay for it

        starts = np.array([bucket for bucket, _, _ in rows], np.int64)
        rollup = self.rollup
        if rollup.grain == "hour":
            columns = [pa.array(starts).cast(_TIME)]
        else:
            columns = [pa.array(bucket_dates(starts, rollup.grain, rollup.timezone)).cast(pa.date32())]
        columns += self._dimensions([key for _, key, _ in rows])
        stored = _decode_all([text for _, _, text in rows])
        columns += [
            measure.column([row[index] for row in stored]) for index, measure in enumerate(self.measures.values())
        ]
        return pa.table(columns, names=[self._bucket_column, *rollup.by, *self.measures])

    @contextmanager
    def _intact(self) -> Iterator[None]:
        """Raise StorageUnavailable if stored bytes cannot be read, which SQLite, without checksums, does not notice."""
        try:
            yield
        except _UNREADABLE as error:
            raise damaged(f"stored rows of rollup {self.name} cannot be read: {error!r}") from error

    def _dimensions(self, keys: Sequence[str]) -> list[pa.Array]:
        count = len(self.rollup.by)
        if not count or not keys:
            return [pa.array([], pa.string())] * count
        distinct = list(dict.fromkeys(keys))
        other = msgspec.json.encode([OTHER] * count).decode()
        decoded = _decode_all([other if key == OTHER_KEY else key for key in distinct])
        values = dict(zip(distinct, decoded, strict=True))
        return [pa.array([values[key][index] for key in keys], pa.string()) for index in range(count)]


def consumer_of(name: str) -> str:
    """The name of a rollup's checkpoint."""
    return f"rollup:{name}"


def _column(name: str, promotions: Mapping[str, Promotion]) -> Column:
    return column(name, promotions) if name else Column("int", "1", "'1'")


def _decode_all(texts: Sequence[str]) -> list[tuple[Any, ...]]:
    """Decode many JSON arrays in one call."""
    return msgspec.json.decode(f"[{','.join(texts)}]", type=list[tuple[Any, ...]])


def _sketches(packed: bytes | None) -> list[bytes]:
    return msgspec.msgpack.decode(packed, type=list[bytes]) if packed is not None else []


def bucket_name(rollup: Rollup) -> str:
    """The name of the column that has the bucket starts for the rollup's grain and zone."""
    return f"bucket:{rollup.grain}:{rollup.timezone}"  # promotions forbid ":", so no column can have this name


def partials(
    engine: SqlEngine, folds: Sequence[Fold], table: pa.Table
) -> tuple[dict[str, PartialState], dict[str, LakebedError]]:
    """Compute each rollup's partial state for the events in `table`. Also returns the errors of failed ones. Blocks."""
    import duckdb  # for its error types; the engine imports it anyway

    computed: dict[str, PartialState] = {}
    failed: dict[str, LakebedError] = {}
    cursor = engine.cursor()
    try:
        cursor.register("input", _bucketed(table, [fold.rollup for fold in folds]))
        for fold in folds:
            name = fold.rollup.name
            try:
                computed[name] = _partial(cursor, fold)
            except duckdb.OutOfMemoryException as error:
                failed[name] = StorageUnavailable(
                    f"rollup {name} needs more memory: {error}", hint="Raise query_memory_bytes", name=name
                )
            except duckdb.Error as error:
                failed[name] = InvalidRollup(
                    f"rollup {name} cannot be computed: {error}",
                    hint="Correct its where, a DuckDB expression over the columns of events",
                    name=name,
                )
    finally:
        cursor.close()
    return computed, failed


def _bucketed(table: pa.Table, rollups: Iterable[Rollup]) -> pa.Table:
    times = table.column("timestamp").cast(pa.int64()).combine_chunks().to_numpy()
    for name, rollup in {bucket_name(rollup): rollup for rollup in rollups}.items():
        table = table.append_column(name, pa.array(bucket_starts(times, rollup.grain, rollup.timezone), pa.int64()))
    return table


def _partial(cursor: duckdb.DuckDBPyConnection, fold: Fold) -> PartialState:
    result = cursor.sql(fold.sql).to_arrow_table()
    buckets, *columns = [_whole(chunks) for chunks in result.columns]
    count = len(fold.rollup.by)
    dimensions = [values.to_pylist() for values in columns[:count]]
    keys = _keys(list(zip(*dimensions, strict=True))) if count else ["[]"] * len(buckets)
    measured = zip(columns[count:], fold.measures.values(), strict=True)
    return PartialState(
        list(zip(buckets.to_pylist(), keys, strict=True)),
        [Texts(values) if measure.identified else values for values, measure in measured],
    )


def _keys(dimensions: Sequence[tuple[str | None, ...]]) -> list[str]:
    """Encode each tuple as JSON. Equal tuples are encoded once."""
    keys = {values: msgspec.json.encode(values).decode() for values in set(dimensions)}
    return [keys[values] for values in dimensions]


def _whole(chunks: pa.ChunkedArray) -> pa.Array:
    combined = chunks.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _look_up(ids: Mapping[str, int], states: Iterable[PartialState]) -> tuple[dict[str, int], list[str]]:
    """Look up the texts of `states` in `ids`. Returns the found ids, and the missing texts, sorted per measure."""
    known: dict[str, int] = {}
    missing: dict[str, None] = {}
    for values in itertools.chain.from_iterable(partial.columns for partial in states):
        for text in values.distinct if isinstance(values, Texts) else ():
            number = ids.get(text)
            if number is None:
                missing[text] = None
            else:
                known[text] = number
    return known, [text for text in missing]  # noqa: C416 - list() would hold the interpreter for all of them


class TextIds:
    """Caches ids of texts. Only committed ids stay in memory: a rolled back id may be assigned to another text.

    Args:
        in_thread: runs a function with arguments in a thread, outside the event loop.
    """

    def __init__(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._in_thread = in_thread
        self._ids: dict[str, int] = {}

    async def of(self, tx: Transaction, partials: Iterable[PartialState]) -> tuple[dict[str, int], list[str]]:
        """Find the ids of all texts of a batch. Returns the ids, and the texts that were looked up in storage."""
        ids, missing = await self._in_thread(_look_up, self._ids, partials)
        for start in range(0, len(missing), PIECE):
            piece = missing[start : start + PIECE]
            ids.update(zip(piece, await identify(tx, piece), strict=True))
        return ids, missing

    async def committed(self, ids: dict[str, int], new: Sequence[str]) -> None:
        """Keep the ids of a committed batch in memory. `new` has the texts that were looked up in storage."""
        await self._in_thread(self._keep, ids, new)

    def _keep(self, ids: dict[str, int], new: Sequence[str]) -> None:
        if len(self._ids) + len(new) > _IDS_IN_MEMORY:
            self._ids = ids
            return
        for start in range(0, len(new), PIECE):
            self._ids.update({text: ids[text] for text in new[start : start + PIECE]})
