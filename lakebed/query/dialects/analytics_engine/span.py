"""Span: between which times the rows lie that a WHERE lets through, so that files of other times are not opened.

Sound, not complete: what is not understood bounds nothing, and the WHERE itself stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlglot import exp

__all__ = ["EVERYTHING", "Span", "span_of"]

_SECOND = timedelta(seconds=1)
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400, "WEEK": 604800}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the dialect's times have no zone: UTC
_MOST = 1 << 32  # seconds: toDateTime() is not asked for more
_ISO = re.compile(r"\d{4}-\d\d-\d\d\b.*", re.DOTALL)  # other texts may be seconds since 1970
_MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.GT: exp.LT,
    exp.LT: exp.GT,
    exp.GTE: exp.LTE,
    exp.LTE: exp.GTE,
    exp.EQ: exp.EQ,
}


class Span(NamedTuple):
    """From `low`, included, to `high`, excluded; in UTC, without a zone. None is no bound."""

    low: datetime | None = None
    high: datetime | None = None

    def both(self, other: Span) -> Span:
        """What lies within both."""
        lows = [one for one in (self.low, other.low) if one is not None]
        highs = [one for one in (self.high, other.high) if one is not None]
        return Span(max(lows, default=None), min(highs, default=None))

    def sql(self) -> str:
        """DuckDB's condition on the column of events, to be added to others."""
        low = "" if self.low is None else f" AND timestamp >= TIMESTAMPTZ '{self.low.isoformat(' ')}+00:00'"
        return low if self.high is None else f"{low} AND timestamp < TIMESTAMPTZ '{self.high.isoformat(' ')}+00:00'"


EVERYTHING = Span()


def span_of(where: exp.Expr | None, now: datetime) -> Span:
    """What a condition, as it was written, says of `timestamp`, where it says it with constants.

    Args:
        where: the condition; None lets everything through.
        now: what `now()` in it is.
    """
    found = EVERYTHING
    for one in _parts(where):
        found = found.both(_compared(one, now.replace(microsecond=0, tzinfo=None)))
    return found


def _parts(where: exp.Expr | None) -> Iterator[exp.Expr]:
    """All of what must be true."""
    if isinstance(where, exp.Paren):
        yield from _parts(where.this)
    elif isinstance(where, exp.And):
        yield from _parts(where.this)
        yield from _parts(where.expression)
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
    """What `timestamp` being so to `value` says. It is cut to whole seconds: what is up to a second has all of it."""
    if value is None:
        return EVERYTHING
    second = value.replace(microsecond=0)
    after = second if kind is exp.LT and second == value else second + _SECOND
    return Span(None if kind in (exp.LT, exp.LTE) else second, None if kind in (exp.GT, exp.GTE) else after)


def _is_timestamp(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and node.name == "timestamp"


def _constant(node: exp.Expr, now: datetime) -> datetime | None:
    """A time that is written out, or `now()`, and intervals more or less; None for anything else."""
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
        return _EPOCH + timedelta(seconds=int(seconds)) if 0 <= seconds < _MOST else None
    return _moment(arguments[0], now)


def _number(node: exp.Expr) -> float | None:
    if isinstance(node, exp.Literal) and not node.is_string:
        return float(node.name)
    if isinstance(node, exp.Div):
        over, under = _number(node.this), _number(node.expression)
        return over / under if over is not None and under else None
    return None


def _length(node: exp.Expr) -> timedelta | None:
    """An interval, or a whole number of seconds."""
    if not isinstance(node, exp.Interval):
        number = _number(node)
        return timedelta(seconds=number) if number is not None and number.is_integer() else None
    unit = node.args.get("unit")
    seconds = _UNITS.get(unit.name.upper().removesuffix("S")) if unit is not None else None
    return None if seconds is None else timedelta(seconds=seconds * int(node.this.name))
