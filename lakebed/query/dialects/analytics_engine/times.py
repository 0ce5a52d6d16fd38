"""Functions of the dialect that take an interval or a format, which must be a literal."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from sqlglot import exp

from lakebed.errors import QueryRefused
from lakebed.query.dialects.analytics_engine.functions import expression

__all__ = ["TIMES", "interval", "moment", "moved"]

_UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
# DuckDB's own origins are the Monday of 2000-01-03, and for months 2000-01-01.
_ORIGINS = {"WEEK": "1970-01-05", "MONTH": "2000-01-01", "QUARTER": "2000-01-01", "YEAR": "2000-01-01"}
_PARTS_OF_A_DAY = ("SECOND", "MINUTE", "HOUR")
_EPOCH = "1970-01-01"
_CODES = {
    **{code: f"%{code}" for code in "YmdHSyjuwIp"},
    "i": "%M",
    "M": "%B",
    "b": "%b",
    "a": "%a",
    "W": "%A",
    "e": "%-d",
    "D": "%m/%d/%y",
    "F": "%Y-%m-%d",
    "T": "%H:%M:%S",
    "R": "%H:%M",
    "h": "%I",
    "n": "\n",
    "t": "\t",
    "%": "%%",
}


def interval(node: exp.Interval) -> exp.Interval:
    """An interval in DuckDB's form; its number may be quoted or not. Raises QueryRefused."""
    unit = node.args.get("unit")
    name = unit.name.upper() if unit is not None else ""
    name = name.removesuffix("S")
    if name not in _UNITS or not isinstance(node.this, exp.Literal) or not re.fullmatch(r"\d{1,9}", node.this.name):
        raise QueryRefused(
            "an interval needs a whole number and a unit: INTERVAL '1' DAY", hint=f"Units are {', '.join(_UNITS)}"
        )
    return exp.Interval(this=exp.Literal.string(node.this.name), unit=exp.Var(this=name))


def moment(name: str, now: datetime, arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
    """`now()` or `today()`: the same moment in the whole statement. Raises QueryRefused."""
    if arguments:
        raise QueryRefused(f"{name}() takes no arguments", hint=f"It is in UTC: write {name}()")
    if name == "today":
        return expression("CAST(a AS DATE)", exp.Literal.string(f"{now:%Y-%m-%d}")), "D"
    return expression("CAST(a AS TIMESTAMP)", exp.Literal.string(f"{now:%Y-%m-%d %H:%M:%S}")), "T"


def moved(node: exp.Expr, kinds: list[str]) -> tuple[exp.Expr, str]:
    """A time or date plus or minus an interval. A date stays a date if the interval has whole days.

    A number means seconds with a time and days with a date. The difference of two times is in seconds, of two dates in
    days. Raises QueryRefused.
    """
    if isinstance(node, exp.Sub) and kinds in (["T", "T"], ["D", "D"]):
        between = "a - b" if kinds[0] == "D" else "epoch(a) - epoch(b)"
        return expression(f"CAST({between} AS BIGINT)", node.this, node.expression), "N"
    if kinds[-1] in ("N", "U") and isinstance(node, (exp.Add, exp.Sub)):
        sign = "+" if isinstance(node, exp.Add) else "-"
        if kinds[0] == "D":
            return expression(f"CAST(a {sign} CAST(b AS INTEGER) AS DATE)", node.this, node.expression), "D"
        return expression(f"a {sign} to_seconds(CAST(b AS BIGINT))", node.this, node.expression), "T"
    before, by = (kinds[0], node.expression) if kinds[-1] == "I" else (kinds[-1], node.this)
    if before not in ("T", "D", "?") or not isinstance(node, (exp.Add, exp.Sub)) or not isinstance(by, exp.Interval):
        raise QueryRefused(
            "an interval can only be added to a time, or subtracted from one", hint="timestamp - INTERVAL '1' DAY"
        )
    if before == "D" and by.args["unit"].name not in _PARTS_OF_A_DAY:
        return expression("CAST(a AS DATE)", node), "D"
    return node, "T"


def _start_of_interval(arguments: list[exp.Expr], kinds: list[str]) -> tuple[exp.Expr, str]:
    if len(arguments) not in (2, 3) or kinds[0] not in "TD?" or not isinstance(arguments[1], exp.Interval):
        hint = "toStartOfInterval(timestamp, INTERVAL '15' MINUTE)"
        raise QueryRefused("toStartOfInterval() takes a time, an interval and a time zone", hint=hint)
    step = arguments[1]
    if not int(step.this.name):
        raise QueryRefused("toStartOfInterval() takes an interval of at least 1", hint="INTERVAL '1' MINUTE")
    unit = step.args["unit"].name
    origin = f"TIMESTAMP '{_ORIGINS.get(unit, _EPOCH)}'"
    is_date = unit in _ORIGINS
    kind, cast = ("D", "DATE") if is_date else ("T", "TIMESTAMP")
    if len(arguments) == 2:  # noqa: PLR2004 - without a time zone
        return expression(f"CAST(time_bucket(b, CAST(a AS TIMESTAMP), {origin}) AS {cast})", arguments[0], step), kind
    local = f"time_bucket(b, timezone(c, timezone('UTC', CAST(a AS TIMESTAMP))), {origin})"
    sql = f"CAST({local} AS DATE)" if is_date else f"timezone('UTC', timezone(c, {local}))"
    return expression(sql, *arguments), kind


def _format(arguments: list[exp.Expr], kinds: list[str]) -> tuple[exp.Expr, str]:
    two_or_three = len(arguments) in (2, 3) and kinds[0] in "TD?"
    if not two_or_three or not isinstance(arguments[1], exp.Literal) or not arguments[1].is_string:
        raise QueryRefused(
            "formatDateTime() takes a time, a format and a time zone", hint="formatDateTime(timestamp, '%F')"
        )
    parts = re.findall(r"%(.?)|([^%]+)", arguments[1].name, re.DOTALL)
    unknown = [code for code, text in parts if not text and code not in _CODES]
    if unknown:
        raise QueryRefused(
            f"formatDateTime() does not support %{unknown[0]}", hint=f"There are {' '.join(sorted(_CODES))}"
        )
    form = exp.Literal.string("".join(text or _CODES[code] for code, text in parts))
    if len(arguments) == 2:  # noqa: PLR2004 - without a time zone
        return expression("strftime(a, b)", arguments[0], form), "S"
    sql = "strftime(timezone(c, timezone('UTC', CAST(a AS TIMESTAMP))), b)"
    return expression(sql, arguments[0], form, arguments[2]), "S"


TIMES: dict[str, Callable[[list[exp.Expr], list[str]], tuple[exp.Expr, str]]] = {
    "tostartofinterval": _start_of_interval,
    "formatdatetime": _format,
}
