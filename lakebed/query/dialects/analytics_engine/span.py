"""The range of times that a WHERE selects, found so that files of other times are not opened.

Sound, not complete: a condition of an unknown form bounds nothing, and the WHERE itself stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlglot import exp

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US

__all__ = ["EVERYTHING", "Span", "span_of"]

_SECOND = timedelta(seconds=1)
_UNITS_US = {"SECOND": SECOND_US, "MINUTE": MINUTE_US, "HOUR": HOUR_US, "DAY": DAY_US, "WEEK": WEEK_US}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the dialect's times have no zone: UTC
_MAX_SECONDS = 1 << 32  # of toDateTime()
_ISO = re.compile(r"\d{4}-\d\d-\d\d\b.*", re.DOTALL)  # other text may be seconds since 1970
_MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.GT: exp.LT,
    exp.LT: exp.GT,
    exp.GTE: exp.LTE,
    exp.LTE: exp.GTE,
    exp.EQ: exp.EQ,
}


class Span(NamedTuple):
    """A range of times from `low` (included) to `high` (excluded), naive datetimes in UTC. None means no bound."""

    low: datetime | None = None
    high: datetime | None = None

    def both(self, other: Span) -> Span:
        """The intersection of this span with `other`."""
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Span(max(lows, default=None), min(highs, default=None))

    def sql(self) -> str:
        """The span as a DuckDB condition on `timestamp`, with a leading AND."""
        low = "" if self.low is None else f" AND timestamp >= TIMESTAMPTZ '{self.low.isoformat(' ')}+00:00'"
        return low if self.high is None else f"{low} AND timestamp < TIMESTAMPTZ '{self.high.isoformat(' ')}+00:00'"


EVERYTHING = Span()


def span_of(where: exp.Expr | None, now: datetime) -> Span:
    """The range of `timestamp` for which `where` can be true, found from its comparisons with constants.

    Args:
        where: the condition; None selects all rows.
        now: value of `now()`.
    """
    span = EVERYTHING
    for condition in _conjuncts(where):
        span = span.both(_compared(condition, now.replace(microsecond=0, tzinfo=None)))
    return span


def _conjuncts(where: exp.Expr | None) -> Iterator[exp.Expr]:
    """Yield the conditions that `where` joins by AND."""
    if isinstance(where, exp.Paren):
        yield from _conjuncts(where.this)
    elif isinstance(where, exp.And):
        yield from _conjuncts(where.this)
        yield from _conjuncts(where.expression)
    elif where is not None:
        yield where


def _compared(node: exp.Expr, now: datetime) -> Span:
    if isinstance(node, exp.Between) and _is_timestamp(node.this):
        low, high = _constant(node.args["low"], now), _constant(node.args["high"], now)
        return _bounded(exp.GTE, low).both(_bounded(exp.LTE, high))
    kind = type(node)
    if kind not in _MIRRORED:
        return EVERYTHING
    left, right = node.this, node.expression
    if _is_timestamp(right):
        left, right, kind = right, left, _MIRRORED[kind]
    return _bounded(kind, _constant(right, now) if _is_timestamp(left) else None)


def _bounded(kind: type[exp.Expr], value: datetime | None) -> Span:
    """The range for which a comparison of `timestamp` with `value` holds. Times of the dialect are whole seconds."""
    if value is None:
        return EVERYTHING
    second = value.replace(microsecond=0)
    after = second if kind is exp.LT and second == value else second + _SECOND
    return Span(None if kind in (exp.LT, exp.LTE) else second, None if kind in (exp.GT, exp.GTE) else after)


def _is_timestamp(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and node.name == "timestamp"


def _constant(node: exp.Expr, now: datetime) -> datetime | None:
    """The value of a literal time or `now()`, plus or minus intervals; None for any other expression."""
    try:
        return _moment(node, now)
    except (ValueError, OverflowError):
        return None


def _moment(node: exp.Expr, now: datetime) -> datetime | None:
    if isinstance(node, exp.Paren):
        return _moment(node.this, now)
    if isinstance(node, exp.Literal) and node.is_string:
        moment = datetime.fromisoformat(node.name) if _ISO.fullmatch(node.name) else None
        return moment if moment is not None and moment.tzinfo is None else None
    if isinstance(node, (exp.Add, exp.Sub)):
        before, by = _moment(node.this, now), _length(node.expression)
        if before is None or by is None:
            return None
        return before + by if isinstance(node, exp.Add) else before - by
    if isinstance(node, exp.Anonymous):
        return _called(str(node.this).lower(), node.expressions, now)
    return None


def _called(name: str, arguments: list[exp.Expr], now: datetime) -> datetime | None:
    if name == "now" and not arguments:
        return now
    if name != "todatetime" or len(arguments) != 1:
        return None
    seconds = _number(arguments[0])
    if seconds is not None:
        return _EPOCH + timedelta(seconds=int(seconds)) if 0 <= seconds < _MAX_SECONDS else None
    return _moment(arguments[0], now)


def _number(node: exp.Expr) -> float | None:
    if isinstance(node, exp.Literal) and not node.is_string:
        return float(node.name)
    if isinstance(node, exp.Div):
        over, under = _number(node.this), _number(node.expression)
        return over / under if over is not None and under else None
    return None


def _length(node: exp.Expr) -> timedelta | None:
    """The length of an interval, or of a whole number of seconds; None for any other expression."""
    if not isinstance(node, exp.Interval):
        number = _number(node)
        return timedelta(seconds=number) if number is not None and number.is_integer() else None
    unit = node.args.get("unit")
    us = _UNITS_US.get(unit.name.upper().removesuffix("S")) if unit is not None else None
    return None if us is None else timedelta(microseconds=us * int(node.this.name))
