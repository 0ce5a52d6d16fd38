"""One rollup at work: a batch of events becomes partial states, these merge with stored ones, those become rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.engine import Engine
from lakebed.errors import InvalidRollup
from lakebed.events import SCHEMA
from lakebed.promotions import Promotion, quoted
from lakebed.rollups.buckets import bucket_dates, bucket_starts
from lakebed.rollups.column import PERSON, Column, column
from lakebed.rollups.expression import Expression
from lakebed.rollups.measure import Measure, as_measure
from lakebed.rollups.rollup import OTHER, Rollup

__all__ = ["OTHER_KEY", "Fold", "Partial"]

# Counted in the fingerprint: a new number computes all rollups again, after a change of what they compute.
_VERSION = 1
OTHER_KEY = "*"  # real keys are JSON arrays
_TIME = pa.timestamp("us", tz="UTC")

Group = tuple[int, str]  # bucket start in microseconds, key
States = list[Any]  # one of each measure


class Partial(msgspec.Struct):
    """What one batch adds to one rollup.

    Attributes:
        groups: in the order of their first events.
        columns: for each measure, its aggregate of each group.
    """

    groups: list[Group]
    columns: list[pa.Array]


class Fold:
    """A rollup, compiled for the promoted columns of its object. Every method blocks.

    Raises:
        InvalidRollup: a measure is asked of a column that cannot give it.
    """

    def __init__(self, rollup: Rollup, promotions: Mapping[str, Promotion], max_groups: int) -> None:
        self.rollup = rollup
        self.name = rollup.name
        self.consumer = f"rollup:{rollup.name}"
        self.max_groups = rollup.max_groups or max_groups
        # Promotions forbid ":", so this cannot be the name of a column.
        self._bucket = f"bucket:{rollup.grain}:{rollup.timezone}"
        self.measures: dict[str, Measure] = {}
        for name, text in rollup.measures.items():
            expression = Expression.parse(text)
            self.measures[name] = as_measure(expression, _column(expression.column, promotions))
        self._sql = self._select([column(name, promotions).text for name in rollup.by])
        self.fingerprint = hashlib.sha256(
            msgspec.json.encode([_VERSION, self._sql, self.max_groups, dict(rollup.measures)])
        ).hexdigest()

    def _select(self, dimensions: Sequence[str]) -> str:
        columns = [f"{quoted(self._bucket)} AS b", *(f"{sql} AS d{i}" for i, sql in enumerate(dimensions))]
        keys = ", ".join(str(i + 1) for i in range(len(columns)))
        columns += [f"{measure.sql} AS m{i}" for i, measure in enumerate(self.measures.values())]
        where = f"WHERE (\n{self.rollup.where}\n)" if self.rollup.where is not None else ""
        # The order of first events decides which groups are kept, whatever the batch.
        return (
            f"SELECT {', '.join(columns)} FROM (SELECT *, coalesce(user_id, anonymous_id) AS {PERSON} FROM input) "
            f"{where} GROUP BY {keys} ORDER BY min(seq)"
        )

    def rehearse(self, engine: Engine, promotions: Sequence[Promotion]) -> None:
        """Run it over no events. Raises InvalidRollup with what DuckDB says, for example of `where`."""
        import duckdb  # noqa: PLC0415 - for its error type; the engine has imported it

        fields = [pa.field(promotion.name, promotion.arrow_type) for promotion in promotions]
        nothing = pa.schema([*SCHEMA, *fields]).empty_table()
        try:
            self.partial(engine, self.bucketed(nothing))
        except duckdb.Error as error:
            raise InvalidRollup(
                f"rollup {self.name} cannot be computed: {error}",
                hint="where is a DuckDB expression over the columns of events",
                name=self.name,
            ) from error

    def bucketed(self, table: pa.Table) -> pa.Table:
        """`table` with the column of bucket starts that this rollup groups by."""
        if self._bucket in table.column_names:
            return table
        times = table.column("timestamp").cast(pa.int64()).combine_chunks().to_numpy()
        return table.append_column(
            self._bucket, pa.array(bucket_starts(times, self.rollup.grain, self.rollup.timezone), pa.int64())
        )

    def partial(self, engine: Engine, table: pa.Table) -> Partial:
        """What a `bucketed` batch adds."""
        found = engine.arrow(self._sql, input=table).combine_chunks()
        buckets, *columns = [_whole(chunks) for chunks in found.columns]
        count = len(self.rollup.by)
        dimensions = [values.to_pylist() for values in columns[:count]]
        keys = map(_key, zip(*dimensions, strict=True)) if count else ["[]"] * len(buckets)
        return Partial(list(zip(buckets.to_pylist(), keys, strict=True)), columns[count:])

    def texts(self, partial: Partial) -> Iterable[pa.Array]:
        """The columns of lists of texts in which ids are to be put."""
        return [values for values, measure in self._with_measures(partial) if measure.identified]

    def _with_measures(self, partial: Partial) -> Iterable[tuple[pa.Array, Measure]]:
        return zip(partial.columns, self.measures.values(), strict=True)

    def taken(self, partial: Partial, ids: Mapping[str, int]) -> dict[Group, States]:
        """The states of a partial's groups, in their order."""
        columns = [
            measure.taken(_identified(values, ids) if measure.identified else values)
            for values, measure in self._with_measures(partial)
        ]
        return dict(zip(partial.groups, map(list, zip(*columns, strict=True)), strict=True))

    def merged(self, states: States, added: States) -> States:
        """The states of both; `states` may be changed."""
        pairs = zip(self.measures.values(), states, added, strict=True)
        return [measure.merged(one, other) for measure, one, other in pairs]

    def written(self, states: States) -> tuple[str, bytes | None]:
        """States as JSON and as bytes."""
        pairs = [measure.written(state) for measure, state in zip(self.measures.values(), states, strict=True)]
        sketches = [sketch for _, sketch in pairs if sketch is not None]
        kept = msgspec.json.encode([kept for kept, _ in pairs]).decode()
        return kept, msgspec.msgpack.encode(sketches) if sketches else None

    def read(self, kept: str, sketches: bytes | None) -> States:
        """The states that were `written`."""
        waiting = iter(_sketches(sketches))
        return [
            measure.read(value, next(waiting) if measure.sketched else None)
            for value, measure in zip(msgspec.json.decode(kept), self.measures.values(), strict=True)
        ]

    def sketch(self, measure: str, sketches: bytes) -> Any:
        """One measure's state, from the bytes of a group."""
        names = [name for name, found in self.measures.items() if found.sketched]
        return self.measures[measure].read(None, _sketches(sketches)[names.index(measure)])

    def table(self, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
        """The public table of `(bucket, key, state)` rows."""
        import numpy as np  # noqa: PLC0415 - only objects that answer questions pay for it

        buckets, keys, kept = zip(*rows, strict=True) if rows else ((), (), ())
        starts = np.array(buckets, np.int64)
        rollup = self.rollup
        if rollup.grain == "hour":
            columns = [pa.array(starts).cast(_TIME)]
        else:
            columns = [pa.array(bucket_dates(starts, rollup.grain, rollup.timezone)).cast(pa.date32())]
        columns += self._dimensions(keys)
        states = zip(*_together(kept), strict=True) if rows else [()] * len(self.measures)
        columns += [measure.shown(values) for measure, values in zip(self.measures.values(), states, strict=True)]
        return pa.table(columns, names=[rollup.bucket_column, *rollup.by, *self.measures])

    def _dimensions(self, keys: Sequence[str]) -> list[pa.Array]:
        count = len(self.rollup.by)
        if not count or not keys:
            return [pa.array([], pa.string())] * count
        distinct = list(dict.fromkeys(keys))
        other = msgspec.json.encode([OTHER] * count).decode()
        read = dict(zip(distinct, _together([other if key == OTHER_KEY else key for key in distinct]), strict=True))
        return [pa.array(values, pa.string()) for values in zip(*(read[key] for key in keys), strict=True)]


def _column(name: str, promotions: Mapping[str, Promotion]) -> Column:
    return column(name, promotions) if name else Column("int", "1", "'1'")


def _key(dimensions: tuple[str | None, ...]) -> str:
    return msgspec.json.encode(dimensions).decode()


def _together(texts: Sequence[str]) -> list[list[Any]]:
    """Many JSON arrays decoded at once."""
    decoded: list[list[Any]] = msgspec.json.decode(f"[{','.join(texts)}]")
    return decoded


def _sketches(packed: bytes | None) -> list[bytes]:
    return msgspec.msgpack.decode(packed, type=list[bytes]) if packed is not None else []


def _whole(chunks: pa.ChunkedArray) -> pa.Array:
    combined = chunks.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _identified(lists: pa.Array, ids: Mapping[str, int]) -> pa.Array:
    """Lists of texts as lists of ids; NULL becomes an empty list."""
    import numpy as np  # noqa: PLC0415 - only objects that fold pay for it
    import pyarrow.compute as pc  # noqa: PLC0415

    encoded = lists.flatten().dictionary_encode()
    table = np.array([ids[text] for text in encoded.dictionary.to_pylist()], np.uint32)
    lengths = pc.list_value_length(lists).fill_null(0).cast(pa.int32())
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths.to_numpy(), dtype=np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(table[encoded.indices.to_numpy()]))
