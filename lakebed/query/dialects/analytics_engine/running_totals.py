"""Functions that read another row. Analytics Engine has none; macros of Grafana's plug-in use them.

ClickHouse reads rows in the order in which they come. Here that order must be explicit: the rows come from a subquery
with an ORDER BY.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from lakebed.errors import QueryRefused
from lakebed.query.dialects.analytics_engine.functions import expression

__all__ = ["RUNNING", "running"]

RUNNING = {"runningdifference": (1, 1), "neighbor": (2, 3), "laginframe": (1, 3)}
"""The least and the greatest number of arguments of each."""


def running(
    name: str, arguments: list[exp.Expr], read: Callable[[exp.Expr], tuple[exp.Expr, str]], order: Sequence[exp.Expr]
) -> tuple[exp.Expr, str]:
    """`runningDifference(x)`, `neighbor(x, offset, default)` or `lagInFrame(x, offset, default)`, and its kind.

    Args:
        name: one of RUNNING, in upper or lower case.
        arguments: arguments in the dialect.
        read: translates an expression to DuckDB's, and returns its kind.
        order: order of the rows.

    Raises:
        QueryRefused: the rows have no order, or the arguments are wrong.
    """
    minimum, maximum = RUNNING[name.lower()]
    if not order:
        raise QueryRefused(f"{name}() needs rows in order", hint="Select FROM (SELECT … ORDER BY t)")
    if not minimum <= len(arguments) <= maximum:
        raise QueryRefused(f"{name}() takes {minimum} to {maximum} arguments", hint=f"There are {len(arguments)}")
    offset = _whole(arguments[1]) if len(arguments) > 1 else 1
    missing = [read(argument)[0] for argument in arguments[2:]] or [exp.Null()]
    value, kind = read(arguments[0])
    if kind == "U":
        value, kind = expression("CAST(a AS BIGINT)", value), "N"
    if name.lower() == "runningdifference":
        if kind != "N":
            raise QueryRefused("runningDifference() takes a number", hint="toUnixTimestamp(timestamp)")
        return exp.Paren(this=exp.Sub(this=value.copy(), expression=_lag(value, 1, value, order))), kind
    # lagInFrame counts backwards, neighbor counts forwards.
    back = -offset if name.lower() == "neighbor" else offset
    return _lag(value, back, missing[0], order), kind


def _lag(value: exp.Expr, back: int, missing: exp.Expr, order: Sequence[exp.Expr]) -> exp.Expr:
    call = exp.Anonymous(
        this="lag" if back >= 0 else "lead", expressions=[value.copy(), exp.Literal.number(abs(back)), missing.copy()]
    )
    return exp.Window(this=call, order=exp.Order(expressions=[ordered.copy() for ordered in order]))


def _whole(node: exp.Expr) -> int:
    try:
        return int(node.sql())
    except ValueError:
        raise QueryRefused("an offset must be a literal whole number", hint="neighbor(x, -1, 0)") from None
