"""Measures: how each is taken from a batch in DuckDB, merged, stored and shown.

A measure's state forms a commutative monoid, with None for "no value yet": any grouping of the same events into batches
gives the same state. That is why sums are exact fractions and not floats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

import pyarrow as pa

from lakebed.errors import InvalidRollup
from lakebed.rollups.column import Column
from lakebed.rollups.expression import Expression

__all__ = ["Measure", "as_measure"]

_SCALE = 9  # digits after the point of a promoted Decimal
_TIME = pa.timestamp("us", tz="UTC")


class Measure(Protocol):
    """One measure over one column.

    Attributes:
        sql: DuckDB aggregate over a batch.
        identified: whether `sql` gives lists of texts that are to be replaced by ids before `taken`.
        sketched: whether a state has a part that `table` does not need, kept apart from it as bytes.
    """

    sql: str
    identified: bool
    sketched: bool

    def taken(self, column: pa.Array) -> Sequence[Any]:
        """The state of each group of a batch, from the values of `sql` (lists of uint32 ids where `identified`)."""
        ...

    def merged(self, one: Any, other: Any) -> Any:
        """The state of both. `one` may be changed in place and given back."""
        ...

    def written(self, state: Any) -> tuple[Any, bytes | None]:
        """What JSON keeps, from which `shown` can tell the result; and the sketch."""
        ...

    def read(self, kept: Any, sketch: bytes | None) -> Any:
        """The state that was `written`."""
        ...

    def shown(self, kept: Sequence[Any]) -> pa.Array:
        """The public column."""
        ...


class _Plain:
    """What states have in common that are a JSON value themselves."""

    identified = False
    sketched = False

    def written(self, state: Any) -> tuple[Any, None]:
        return state, None

    def read(self, kept: Any, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        return kept

    def taken(self, column: pa.Array) -> Sequence[Any]:
        values: list[Any] = column.to_pylist()
        return values


class _Count(_Plain):
    sql = "count(*)"

    def merged(self, one: int, other: int) -> int:
        return one + other

    def shown(self, kept: Sequence[int]) -> pa.Array:
        return pa.array(kept, pa.int64())


class _Sum(_Plain):
    """A sum as an exact fraction, None without values."""

    def __init__(self, column: Column) -> None:
        self._kind = column.kind
        x = column.sql
        self.sql = {
            "int": f"CAST(sum({x}) AS VARCHAR)",
            # Whole and broken parts apart: DuckDB's sum of DECIMAL(38, 9) overflows, and would for ever.
            "Decimal": f"CAST(sum(trunc({x})::HUGEINT) AS VARCHAR) || ' ' || CAST(sum({x} - trunc({x})) AS VARCHAR)",
            "float": f"list({x}) FILTER ({x} IS NOT NULL)",
        }[self._kind]

    def taken(self, column: pa.Array) -> Sequence[Fraction | None]:
        if self._kind == "float":
            return [exact_sum(values.tolist()) if len(values) else None for values in _lists(column)]
        return [None if text is None else sum(map(Fraction, text.split()), Fraction(0)) for text in column.to_pylist()]

    def merged(self, one: Fraction | None, other: Fraction | None) -> Fraction | None:
        return one if other is None else other if one is None else one + other

    def written(self, state: Fraction | None) -> tuple[str | None, None]:
        return None if state is None else str(state), None

    def read(self, kept: str | None, sketch: bytes | None) -> Fraction | None:  # noqa: ARG002 - the protocol's
        return None if kept is None else Fraction(kept)

    def shown(self, kept: Sequence[str | None]) -> pa.Array:
        sums = [self.read(text, None) for text in kept]
        if self._kind == "int":
            whole = [None if value is None else int(value) for value in sums]
            return _fitting(whole, (pa.int64(), pa.decimal128(38, 0)), sums)
        if self._kind == "Decimal":
            return _fitting([None if value is None else _decimal(value) for value in sums], (_DECIMAL,), sums)
        return _floats(sums)


class _Average(_Plain):
    """A sum and how many values it has."""

    def __init__(self, column: Column) -> None:
        self._sum = _Sum(column)
        self.sql = f"struct_pack(s := {self._sum.sql}, n := count({column.sql}))"

    def taken(self, column: pa.Array) -> Sequence[tuple[Fraction | None, int]]:
        sums, counts = column.flatten()
        return list(zip(self._sum.taken(sums), counts.to_pylist(), strict=True))

    def merged(self, one: tuple[Fraction | None, int], other: tuple[Fraction | None, int]) -> Any:
        return self._sum.merged(one[0], other[0]), one[1] + other[1]

    def written(self, state: tuple[Fraction | None, int]) -> tuple[Any, None]:
        return [self._sum.written(state[0])[0], state[1]], None

    def read(self, kept: Any, sketch: bytes | None) -> tuple[Fraction | None, int]:
        return self._sum.read(kept[0], sketch), kept[1]

    def shown(self, kept: Sequence[Any]) -> pa.Array:
        states = [self.read(state, None) for state in kept]
        return _floats([None if total is None else total / n for total, n in states])


class _Extreme(_Plain):
    """The least or greatest value, None without values. Text is ordered by code points."""

    def __init__(self, function: str, column: Column) -> None:
        self._choose: Callable[..., Any] = min if function == "min" else max
        self._kind = column.kind
        sql = f"{function}({column.sql})"
        # + 0.0 makes -0.0 zero: the two are equal, so which one comes first would decide.
        wrap = {"datetime": "epoch_us({})", "Decimal": "CAST({} AS VARCHAR)", "float": "{} + 0.0"}
        self.sql = wrap.get(self._kind, "{}").format(sql)

    def merged(self, one: Any, other: Any) -> Any:
        if one is None or other is None:
            return one if other is None else other
        return self._choose(one, other, key=Decimal if self._kind == "Decimal" else None)

    def shown(self, kept: Sequence[Any]) -> pa.Array:
        if self._kind == "datetime":
            return pa.array(kept, pa.int64()).cast(_TIME)
        if self._kind == "Decimal":
            return pa.array([None if text is None else Decimal(text) for text in kept], _DECIMAL)
        kinds = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "str": pa.string()}
        return pa.array(kept, kinds[self._kind])


class _Distinct:
    """A roaring bitmap of ids."""

    identified = True
    sketched = True

    def __init__(self, column: Column) -> None:
        self.sql = f"list(DISTINCT {column.text}) FILTER ({column.text} IS NOT NULL)"

    def taken(self, column: pa.Array) -> Sequence[Any]:
        from pyroaring import BitMap  # only objects that fold pay for it

        return [BitMap(memoryview(ids)) if len(ids) else BitMap() for ids in _lists(column)]

    def merged(self, one: Any, other: Any) -> Any:
        one |= other
        return one

    def written(self, state: Any) -> tuple[int, bytes]:
        state.run_optimize()
        return len(state), state.serialize()

    def read(self, kept: int, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        from pyroaring import BitMap  # only objects that fold pay for it

        return BitMap.deserialize(sketch or b"")

    def shown(self, kept: Sequence[int]) -> pa.Array:
        return pa.array(kept, pa.int64())


class _Quantile:
    """A KLL sketch. Its compaction flips coins, so estimates (not exact answers) may differ between two rebuilds."""

    identified = False
    sketched = True

    def __init__(self, rank: float, column: Column) -> None:
        self._rank = rank
        x = "" if column.kind == "float" else "::DOUBLE"
        self.sql = f"list(({column.sql}){x}) FILTER (({column.sql}) IS NOT NULL)"

    def taken(self, column: pa.Array) -> Sequence[Any]:
        from datasketches import kll_doubles_sketch  # only rollups with quantiles pay for it

        sketches = []
        for values in _lists(column):
            sketch = kll_doubles_sketch(_KLL_K)
            sketch.update(values.copy())  # it takes no read-only array
            sketches.append(sketch)
        return sketches

    def merged(self, one: Any, other: Any) -> Any:
        one.merge(other)
        return one

    def written(self, state: Any) -> tuple[float | None, bytes]:
        return None if state.is_empty() else self._estimate(state), state.serialize()

    def _estimate(self, state: Any) -> float:
        if self._rank in (0, 1):  # these it knows exactly, but gives no better than the others when asked for a rank
            extreme: float = state.get_max_value() if self._rank else state.get_min_value()
            return extreme
        # inclusive: the least value that is not below a `rank` part of all values, as SQL's quantile_disc.
        estimate: float = state.get_quantile(self._rank, True)
        return estimate

    def read(self, kept: float | None, sketch: bytes | None) -> Any:  # noqa: ARG002 - the protocol's
        from datasketches import kll_doubles_sketch  # only rollups with quantiles pay for it

        return kll_doubles_sketch.deserialize(sketch)

    def shown(self, kept: Sequence[float | None]) -> pa.Array:
        return pa.array(kept, pa.float64())


_KLL_K = 200
_DECIMAL = pa.decimal128(38, _SCALE)


def as_measure(expression: Expression, column: Column) -> Measure:
    """The measure that an expression asks for over the column it names. Raises InvalidRollup."""
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


def exact_sum(values: list[float]) -> Fraction:
    """The sum of finite floats without rounding. `values` is used up."""
    count, total = len(values), Fraction(0)
    try:
        # fsum is exact but for its last rounding; taking its result away gives what was rounded.
        while part := math.fsum(values):
            total += Fraction(part)
            values.append(-part)
    except OverflowError:
        return sum(map(Fraction, values[:count]), Fraction(0))
    return total


def _lists(column: pa.Array) -> Iterable[Any]:
    """The numpy values of each list of a list array; NULL is empty."""
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
    """The values in the first type that holds them all, else the sums as floats."""
    for kind in kinds:
        try:
            return pa.array(values, kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
    return _floats(sums)
