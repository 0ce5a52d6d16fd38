"""The timestamps that a SELECT can read, by its WHERE clauses. Files outside these bounds are not opened.

Sound, not complete: a condition of an unknown form bounds nothing, so an event that could match is never left out.
sqlglot parses the text. It is imported at the first query that could be bounded. Dates are UTC dates, as UTC is the
time zone of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lakebed.clock import from_us, to_us
from lakebed.query.constants import UNITS_US, Constants, NotUnderstood, type_name

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["UNBOUNDED", "Bounds", "find_bounds"]

_COLUMN = "timestamp"
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_MONDAY_US = to_us(datetime(1970, 1, 5, tzinfo=UTC))


class Bounds(msgspec.Struct, frozen=True):
    """A range of timestamps, `low_us` and `high_us` included. None: no bound. If low > high, the range is empty."""

    low_us: int | None = None
    high_us: int | None = None

    def overlaps(self, low_us: int, high_us: int) -> bool:
        """Whether these bounds contain any timestamp from `low_us` to `high_us`, both included."""
        return (self.low_us is None or self.low_us <= high_us) and (self.high_us is None or self.high_us >= low_us)

    def both(self, other: Bounds) -> Bounds:
        """The intersection of these bounds with `other`."""
        lows = [us for us in (self.low_us, other.low_us) if us is not None]
        highs = [us for us in (self.high_us, other.high_us) if us is not None]
        return Bounds(max(lows, default=None), min(highs, default=None))


UNBOUNDED = Bounds()


class _Floored(msgspec.Struct, frozen=True):
    """The timestamp column, rounded down to `unit` (None: not rounded). `zoned`: read text beside it as TIMESTAMPTZ."""

    unit: str | None
    zoned: bool
    is_date: bool = False


def find_bounds(
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    *,
    uses: int,
    now_us: int | None = None,
    table: str = "events",
) -> tuple[Bounds, ...]:
    """The bounds of each use of `table` in `sql`, one SELECT. The query reads only rows within one of them.

    Args:
        sql: the user's text.
        params: values of `?` (a sequence) or `$name` (a mapping).
        uses: number of times that DuckDB's own parser sees `table`. If sqlglot sees another number, nothing is bounded.
        now_us: value of `now()` in the query's transaction. If it is None, conditions with `now()` bound nothing.
        table: name of the table.
    """
    from sqlglot import exp  # costs 0.1 s; only queries about time pay it
    from sqlglot.errors import SqlglotError

    try:
        tree = _parse(sql, len(params or ()))
    except (SqlglotError, RecursionError, NotUnderstood):
        return (UNBOUNDED,)
    tables = [node for node in tree.find_all(exp.Table) if isinstance(node.this, exp.Identifier)]
    nodes = [node for node in tables if node.name.lower() == table]
    if not nodes or len(nodes) != uses:
        return (UNBOUNDED,)
    constants = Constants(_by_name(params), now_us)
    return tuple(_of_use(node, constants) for node in nodes)


def _parse(sql: str, count: int) -> Any:
    import sqlglot  # see find_bounds

    tokens = sqlglot.tokenize(sql, read="duckdb")
    kinds = [token.token_type for token in tokens]
    for index, token in enumerate(tokens[:-2]):
        # sqlglot's tree has the same form for date_trunc('day', …) and date_trunc(day, …), where day is a column.
        if token.text.lower().endswith("trunc") and kinds[index + 2] is not sqlglot.TokenType.STRING:
            raise NotUnderstood
    # DuckDB numbers `?` in the order of the text, which a tree no longer shows: they become $1, $2 …
    # They are found by their position: sqlglot's tokens are not DuckDB's (`?::` is one token).
    marks = [token.start for token in tokens if sql[token.start] == "?"]
    if marks and count != len(marks):
        raise NotUnderstood
    for number, start in reversed(list(enumerate(marks, 1))):
        sql = f"{sql[:start]}${number}{sql[start + 1 :]}"
    return sqlglot.parse_one(sql, read="duckdb")


def _by_name(params: Sequence[Any] | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if params is None:
        return {}
    return params if isinstance(params, Mapping) else {str(number): value for number, value in enumerate(params, 1)}


def _of_use(use: exp.Table, constants: Constants) -> Bounds:
    from sqlglot import exp  # see find_bounds

    if any(value for key, value in use.args.items() if key not in ("this", "alias")):
        return UNBOUNDED  # a sample, a pivot, a schema, a join inside parentheses …
    alias = use.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        return UNBOUNDED
    select = use.parent.parent if isinstance(use.parent, (exp.From, exp.Join)) else None
    if not isinstance(select, exp.Select) or select.args.get("sample") or select.args.get("laterals"):
        return UNBOUNDED
    where, joins = select.args.get("where"), select.args.get("joins") or []
    if where is None or not all(_keeps_where(join) for join in joins):
        return UNBOUNDED
    reader = _Conditions(use.alias_or_name.lower(), constants)
    bounds = UNBOUNDED
    for condition in _conjuncts(where.this):
        bounds = bounds.both(reader.bounds(condition))
    return bounds


def _keeps_where(join: exp.Join) -> bool:
    """Whether rows that WHERE drops may already be dropped before `join`, without another result.

    True for inner and outer joins: a row whose partner was dropped is filled with NULL, and then WHERE drops it too.
    ASOF and POSITIONAL choose another partner instead; SEMI and ANTI hide their right side; USING and NATURAL may make
    one `timestamp` of two.
    """
    using = {column.name.lower() for column in join.args.get("using") or []}
    kind = (join.kind or "").upper()
    return not join.method and kind in ("", "INNER", "OUTER", "CROSS") and _COLUMN not in using


def _conjuncts(condition: exp.Expression) -> Iterator[exp.Expression]:
    from sqlglot import exp  # see find_bounds

    waiting = [condition]
    while waiting:
        node = waiting.pop()
        if isinstance(node, exp.And):
            waiting += [node.this, node.expression]
        elif isinstance(node, exp.Paren):
            waiting.append(node.this)
        else:
            yield node


class _Conditions:
    """Finds the bounds that conditions set for `timestamp` of the source with the alias `source`."""

    def __init__(self, source: str, constants: Constants) -> None:
        self._source = source
        self._constants = constants

    def bounds(self, condition: exp.Expression) -> Bounds:
        """The timestamps for which `condition` can be true."""
        from sqlglot import exp  # see find_bounds

        operators: dict[type, str] = {exp.EQ: "=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}
        mirrored = {"=": "=", ">": "<", ">=": "<=", "<": ">", "<=": ">="}
        try:
            if isinstance(condition, exp.Between) and not condition.args.get("symmetric"):
                side = self._side(condition.this)
                low = _limit(side, ">=", self._value(condition.args["low"], side))
                return low.both(_limit(side, "<=", self._value(condition.args["high"], side)))
            operator = operators.get(type(condition))
            if operator is None:
                return UNBOUNDED
            left, right = condition.this, condition.expression
            if left.find(exp.Column) is None:
                left, right, operator = right, left, mirrored[operator]
            side = self._side(left)
            return _limit(side, operator, self._value(right, side))
        except (NotUnderstood, OverflowError):
            return UNBOUNDED

    def _value(self, node: exp.Expression, side: _Floored) -> int:
        return self._constants.value(node, zoned=side.zoned, is_date=side.is_date)

    def _side(self, node: exp.Expression) -> _Floored:
        from sqlglot import exp  # see find_bounds

        if isinstance(node, exp.Paren):
            return self._side(node.this)
        if isinstance(node, exp.Column):
            return self._column(node)
        if type(node) is exp.Cast:
            return _cast_side(self._side(node.this), type_name(node))
        if isinstance(node, exp.TimestampTrunc) and not node.args.get("zone"):
            inner, unit = self._side(node.this), node.args["unit"].name.upper()
            if inner.unit is None and (unit in UNITS_US or unit in _MONTHS):
                return _Floored(unit, inner.zoned)
        raise NotUnderstood

    def _column(self, node: exp.Column) -> _Floored:
        if node.name.lower() != _COLUMN or node.args.get("db") or node.args.get("join_mark"):
            raise NotUnderstood
        if node.table and node.table.lower() != self._source:
            raise NotUnderstood
        return _Floored(None, zoned=True)


def _cast_side(side: _Floored, kind: str) -> _Floored:
    if kind == "DATE" and side.unit is None:
        return _Floored("DAY", zoned=False, is_date=True)
    if kind in ("TIMESTAMP", "TIMESTAMPTZ") and not side.is_date:
        return _Floored(side.unit, zoned=kind == "TIMESTAMPTZ")
    raise NotUnderstood


def _limit(side: _Floored, operator: str, us: int) -> Bounds:
    """The timestamps for which `floor(timestamp) operator us` holds."""
    start, after = _bucket(side.unit, us)
    ceiling = us if us == start else after
    if operator == "=":
        return Bounds(start, after - 1)
    if operator == ">=":
        return Bounds(low_us=ceiling)
    if operator == ">":
        return Bounds(low_us=after)
    return Bounds(high_us=(ceiling if operator == "<" else after) - 1)


def _bucket(unit: str | None, us: int) -> tuple[int, int]:
    """The start and the end (exclusive) of the bucket of `unit` that contains `us`."""
    if unit is None:
        return us, us + 1
    if unit == "WEEK":
        start = (us - _MONDAY_US) // UNITS_US[unit] * UNITS_US[unit] + _MONDAY_US
        return start, start + UNITS_US[unit]
    if unit in UNITS_US:
        start = us // UNITS_US[unit] * UNITS_US[unit]
        return start, start + UNITS_US[unit]
    moment, step = from_us(us), _MONTHS[unit]
    first = moment.year * 12 + (moment.month - 1) // step * step
    return _month_us(first), _month_us(first + step)


def _month_us(months: int) -> int:
    return to_us(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC))
