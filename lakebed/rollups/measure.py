"""Measures. Each defines how its state is computed from a batch in DuckDB, merged, stored, and made a column.

A measure's state forms a commutative monoid, with None for "no value yet": any grouping of the same events into batches
gives the same state. That is why sums are exact fractions and not floats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

import pyarrow as pa

from lakebed.errors import InvalidRollup
from lakebed.rollups.column import Column
from lakebed.rollups.expression import Expression

__all__ = ["PIECE", "Measure", "PeopleIndex", "Texts", "as_measure", "unions"]

PIECE = 4096  # texts that are handled in one step: one or two milliseconds of the interpreter
_SCALE = 9  # decimals of a promoted Decimal
_TIME = pa.timestamp("us", tz="UTC")


class Measure(Protocol):
    """One measure over one column.

    Attributes:
        sql: DuckDB aggregate over the events of a batch.
        identified: whether `sql` gives lists of texts, which are replaced by ids before `states`.
        sketched: whether a state has a part that `column` does not need, stored apart from it as bytes.
    """

    sql: str
    identified: bool
    sketched: bool

    def states(self, values: pa.Array) -> Sequence[Any]:
        """The state of each group of a batch, from the values of `sql` (lists of uint32 ids if `identified`)."""
        ...

    def merge(self, state: Any, other: Any) -> Any:
        """The state of the events of `state` and `other` together. `state` may be changed in place and returned."""
        ...

    def write(self, state: Any) -> tuple[Any, bytes | None]:
        """Convert a state for storage: to a JSON value, from which `column` computes the result, and a sketch."""
        ...

    def read(self, stored: Any, sketch: bytes | None) -> Any:
        """Restore the state from what `write` returned."""
        ...

    def column(self, stored: Sequence[Any]) -> pa.Array:
        """Compute the public column from stored JSON values."""
        ...


class Texts:
    """Lists of texts, whose texts are later replaced by ids. NULL counts as an empty list.

    Arrow does each step that would block the interpreter, and thus every `track`, for long; others work in pieces.

    Attributes:
        distinct: the distinct texts, in SQLite's order.
    """

    def __init__(self, lists: pa.Array) -> None:
        import numpy as np  # only objects that fold pay for it
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        encoded = lists.flatten().dictionary_encode()
        order = pc.sort_indices(encoded.dictionary)
        texts = encoded.dictionary.take(order)
        self.distinct: list[str] = []
        for start in range(0, len(texts), PIECE):
            self.distinct += texts.slice(start, PIECE).to_pylist()
        ranks = np.empty(len(texts), np.int32)
        ranks[order.to_numpy()] = np.arange(len(texts), dtype=np.int32)
        self._indices = ranks[encoded.indices.to_numpy()]
        self._lengths = lists.value_lengths().fill_null(0).cast(pa.int32()).to_numpy()

    def identified(self, ids: Mapping[str, int]) -> pa.Array:
        """The lists with texts replaced by their uint32 ids."""
        import numpy as np  # only objects that fold pay for it

        table = np.empty(len(self.distinct), np.uint32)
        for start in range(0, len(table), PIECE):
            table[start : start + PIECE] = [ids[text] for text in self.distinct[start : start + PIECE]]
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(self._lengths, dtype=np.int32)])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(table[self._indices]))


class PeopleIndex(Protocol):
    """Maps identities to the persons to whom they belong now.

    Storage has bitmaps of identities, which a merge or its undoing does not change, so no event is rescanned. Readers
    convert them to bitmaps of people.

    Attributes:
        version: number that changes whenever an identity's person changes.
        size: number of identities that belong to another identity's person.
    """

    version: int
    size: int

    def people_of(self, bitmap: Any) -> Any:
        """Convert a bitmap of identities to the bitmap of their people."""
        ...


class _Plain:
    """A measure whose state is itself a JSON value."""

    identified = False
    sketched = False

    def write(self, state: Any) -> tuple[Any, None]:
        return state, None

    def read(self, stored: Any, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        return stored

    def states(self, values: pa.Array) -> Sequence[Any]:
        states: list[Any] = values.to_pylist()
        return states


class _Count(_Plain):
    sql = "count(*)"

    def merge(self, state: int, other: int) -> int:
        return state + other

    def column(self, stored: Sequence[int]) -> pa.Array:
        return pa.array(stored, pa.int64())


class _Sum(_Plain):
    """A sum, kept as an exact fraction; None if there are no values."""

    def __init__(self, column: Column) -> None:
        self._kind = column.kind
        x = column.sql
        self.sql = {
            "int": f"CAST(sum({x}) AS VARCHAR)",
            # Whole and fractional parts apart: DuckDB's sum of DECIMAL(38, 9) overflows, at each attempt.
            "Decimal": f"CAST(sum(trunc({x})::HUGEINT) AS VARCHAR) || ' ' || CAST(sum({x} - trunc({x})) AS VARCHAR)",
            "float": f"list({x}) FILTER ({x} IS NOT NULL)",
        }[self._kind]

    def states(self, values: pa.Array) -> Sequence[Fraction | None]:
        if self._kind == "float":
            return [exact_sum(numbers.tolist()) if len(numbers) else None for numbers in _lists(values)]
        return [None if text is None else sum(map(Fraction, text.split()), Fraction(0)) for text in values.to_pylist()]

    def merge(self, state: Fraction | None, other: Fraction | None) -> Fraction | None:
        return state if other is None else other if state is None else state + other

    def write(self, state: Fraction | None) -> tuple[str | None, None]:
        return None if state is None else str(state), None

    def read(self, stored: str | None, sketch: bytes | None) -> Fraction | None:  # noqa: ARG002 - the protocol's
        return None if stored is None else Fraction(stored)

    def column(self, stored: Sequence[str | None]) -> pa.Array:
        sums = [self.read(text, None) for text in stored]
        if self._kind == "int":
            whole = [None if value is None else int(value) for value in sums]
            return _fitting(whole, (pa.int64(), pa.decimal128(38, 0)), sums)
        if self._kind == "Decimal":
            return _fitting([None if value is None else _decimal(value) for value in sums], (_DECIMAL,), sums)
        return _floats(sums)


class _Average(_Plain):
    """An average, kept as a sum and the number of its values."""

    def __init__(self, column: Column) -> None:
        self._sum = _Sum(column)
        self.sql = f"struct_pack(s := {self._sum.sql}, n := count({column.sql}))"

    def states(self, values: pa.Array) -> Sequence[tuple[Fraction | None, int]]:
        sums, counts = values.flatten()
        return list(zip(self._sum.states(sums), counts.to_pylist(), strict=True))

    def merge(self, state: tuple[Fraction | None, int], other: tuple[Fraction | None, int]) -> Any:
        return self._sum.merge(state[0], other[0]), state[1] + other[1]

    def write(self, state: tuple[Fraction | None, int]) -> tuple[Any, None]:
        return [self._sum.write(state[0])[0], state[1]], None

    def read(self, stored: Any, sketch: bytes | None) -> tuple[Fraction | None, int]:
        return self._sum.read(stored[0], sketch), stored[1]

    def column(self, stored: Sequence[Any]) -> pa.Array:
        states = [self.read(state, None) for state in stored]
        return _floats([None if total is None else total / n for total, n in states])


class _Extreme(_Plain):
    """The least or greatest value; None if there are no values. Text is ordered by code points."""

    def __init__(self, function: str, column: Column) -> None:
        self._choose: Callable[..., Any] = min if function == "min" else max
        self._kind = column.kind
        sql = f"{function}({column.sql})"
        # + 0.0 makes -0.0 zero: the two are equal, so which one comes first would decide.
        wrap = {"datetime": "epoch_us({})", "Decimal": "CAST({} AS VARCHAR)", "float": "{} + 0.0"}
        self.sql = wrap.get(self._kind, "{}").format(sql)

    def merge(self, state: Any, other: Any) -> Any:
        if state is None or other is None:
            return state if other is None else other
        return self._choose(state, other, key=Decimal if self._kind == "Decimal" else None)

    def column(self, stored: Sequence[Any]) -> pa.Array:
        if self._kind == "datetime":
            return pa.array(stored, pa.int64()).cast(_TIME)
        if self._kind == "Decimal":
            return pa.array([None if text is None else Decimal(text) for text in stored], _DECIMAL)
        kinds = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "str": pa.string()}
        return pa.array(stored, kinds[self._kind])


class _Distinct:
    """The number of distinct values, kept as a roaring bitmap of ids."""

    identified = True
    sketched = True

    def __init__(self, column: Column) -> None:
        self.sql = f"list(DISTINCT {column.text}) FILTER ({column.text} IS NOT NULL)"

    def states(self, values: pa.Array) -> Sequence[Any]:
        from pyroaring import BitMap  # only objects that fold pay for it

        return [BitMap(memoryview(ids)) if len(ids) else BitMap() for ids in _lists(values)]

    def merge(self, state: Any, other: Any) -> Any:
        state |= other
        return state

    def write(self, state: Any) -> tuple[int, bytes]:
        state.run_optimize()
        return len(state), state.serialize()

    def read(self, stored: int, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        from pyroaring import BitMap  # only objects that fold pay for it

        return BitMap.deserialize(sketch or b"")

    def column(self, stored: Sequence[int]) -> pa.Array:
        return pa.array(stored, pa.int64())


class _Quantile:
    """A quantile, kept as a KLL sketch. Its compaction is random: estimates (not exact answers) vary by rebuild."""

    identified = False
    sketched = True

    def __init__(self, rank: float, column: Column) -> None:
        self._rank = rank
        x = "" if column.kind == "float" else "::DOUBLE"
        self.sql = f"list(({column.sql}){x}) FILTER (({column.sql}) IS NOT NULL)"

    def states(self, values: pa.Array) -> Sequence[Any]:
        from datasketches import kll_doubles_sketch  # only rollups with quantiles pay for it

        sketches = []
        for numbers in _lists(values):
            sketch = kll_doubles_sketch(_KLL_K)
            sketch.update(numbers.copy())  # it takes no read-only array
            sketches.append(sketch)
        return sketches

    def merge(self, state: Any, other: Any) -> Any:
        state.merge(other)
        return state

    def write(self, state: Any) -> tuple[float | None, bytes]:
        return None if state.is_empty() else self._estimate(state), state.serialize()

    def _estimate(self, state: Any) -> float:
        if self._rank in (0, 1):  # the sketch holds these exactly, but get_quantile only estimates them
            extreme: float = state.get_max_value() if self._rank else state.get_min_value()
            return extreme
        # inclusive: the least value that is not below a `rank` part of all values, as SQL's quantile_disc.
        estimate: float = state.get_quantile(self._rank, True)
        return estimate

    def read(self, stored: float | None, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        from datasketches import kll_doubles_sketch  # only rollups with quantiles pay for it

        return kll_doubles_sketch.deserialize(sketch)

    def column(self, stored: Sequence[float | None]) -> pa.Array:
        return pa.array(stored, pa.float64())


_KLL_K = 200
_DECIMAL = pa.decimal128(38, _SCALE)


def as_measure(expression: Expression, column: Column) -> Measure:
    """Make the measure for an expression over its column. Raises InvalidRollup if their types do not fit."""
    function = expression.function
    if function in ("sum", "avg", "quantile") and column.kind not in ("int", "float", "Decimal"):
        raise InvalidRollup(
            f"{function}({expression.column}) needs a number, but {expression.column} is {column.kind}",
            hint="Use count, min, max or distinct, or promote the property as int, float or Decimal",
        )
    if function == "quantile":
        return _Quantile(expression.rank or 0.0, column)
    if function in ("min", "max"):
        return _Extreme(function, column)
    if function == "count":
        return _Count()
    return _Distinct(column) if function == "distinct" else (_Sum if function == "sum" else _Average)(column)


def unions(bitmaps: Iterable[tuple[int, Any]], windows: Sequence[tuple[int, int]]) -> list[int]:
    """For each window `[start_us, end_us)`, the number of distinct values in buckets that start in it. Blocks."""
    from pyroaring import BitMap  # only objects that run queries pay for it

    buckets = list(bitmaps)
    inside = [[bitmap for start, bitmap in buckets if low <= start < high] for low, high in windows]
    return [len(BitMap.union(*window)) if window else 0 for window in inside]


def exact_sum(values: list[float]) -> Fraction:
    """The exact sum of finite floats, without rounding. Changes the list `values`."""
    count, total = len(values), Fraction(0)
    try:
        # fsum is exact up to its last rounding; subtracting its result leaves the rounded part.
        while part := math.fsum(values):
            total += Fraction(part)
            values.append(-part)
    except OverflowError:
        return sum(map(Fraction, values[:count]), Fraction(0))
    return total


def _lists(column: pa.Array) -> Iterable[Any]:
    """The values of each list in a list array, as numpy arrays. NULL gives an empty array."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    ends = list(itertools.accumulate(column.value_lengths().fill_null(0).to_pylist()))
    return [values[start:end] for start, end in itertools.pairwise([0, *ends])]


def _floats(values: Iterable[Fraction | None]) -> pa.Array:
    return pa.array([None if value is None else _float(value) for value in values], pa.float64())


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:  # beyond 1.8e308: what adding floats would give
        return math.inf if value > 0 else -math.inf


def _decimal(value: Fraction) -> Decimal:
    return Decimal(f"{int(value * 10**_SCALE)}E-{_SCALE}")  # from text: arithmetic would round to 28 digits


def _fitting(values: Sequence[Any], kinds: Sequence[pa.DataType], sums: Sequence[Fraction | None]) -> pa.Array:
    """Make a column of `values` in the first of `kinds` that can hold them all; else of `sums` as floats."""
    for kind in kinds:
        try:
            return pa.array(values, kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
    return _floats(sums)
