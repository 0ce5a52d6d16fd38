"""Arguments of reports: whole numbers, numbers, texts, choices and durations, checked here and nowhere else.

However a report is called (Python, HTTP, RPC, CLI, MCP), up to three checks see its arguments:

- `interface.signature.Signature.bind`, for calls over a network: names, types, and the most rows that may be asked for.
- This module and the `of` of `Calendar`, `EventFilter`, `Breakdown` and `FunnelAttempts`: values. Calls from Python do
  not pass `bind`, so these checks look at types, too.
- DuckDB, by `ReportContext.check_condition`: whether a condition in SQL is one expression that only reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, Self

import msgspec

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US
from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion, column_sql, quoted
from lakebed.reports.scope import Parameters

__all__ = [
    "MAX_ROWS",
    "OTHER",
    "Breakdown",
    "Duration",
    "check_choice",
    "check_cursor",
    "check_name",
    "check_number",
    "check_whole_number",
    "duration_us",
    "refuse",
]

MAX_ROWS = 10_000
"""The largest `limit` of a report that lists rows."""

Duration = timedelta | str | int | float

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)\s*")
_UNITS_US = {"ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "min": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": WEEK_US}
_LONGEST_US = 100 * 366 * DAY_US


def refuse(name: str, value: object, hint: str) -> NoReturn:
    """Raise QueryRefused for the argument `name`. The message shows `value`, cut short; `hint` says what to give."""
    raise QueryRefused(f"`{name}` is {str(value)[:40]!r}", hint=hint)


def check_whole_number(name: str, value: Any, maximum: int, *, minimum: int = 1, hint: str | None = None) -> None:
    """Raise QueryRefused unless `value` is an int from `minimum` to `maximum`. True is refused: it would be 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        refuse(name, value, hint or f"Give {minimum} to {maximum}")


def check_number(name: str, value: Any, maximum: float = math.inf, *, hint: str) -> None:
    """Raise QueryRefused unless `value` is an int or a float above 0, up to `maximum`. NaN is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= maximum:
        refuse(name, value, hint)


def check_cursor(before: Any) -> None:
    """Raise QueryRefused unless `before` is None or the seq of an event, after which the next page begins."""
    if before is not None and (isinstance(before, bool) or not isinstance(before, int) or before < 0):
        refuse("before", before, "Give the seq of the last row that you have")


def check_name(name: str, value: Any, hint: str = "Name a column or a property") -> None:
    """Raise QueryRefused unless `value` is a text that is not empty."""
    if not isinstance(value, str) or not value:
        refuse(name, value, hint)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise QueryRefused unless `value` is one of `choices`."""
    if value not in tuple(choices):
        refuse(name, value, f"Use one of {', '.join(choices)}")


def duration_us(name: str, value: Duration) -> int:
    """`value` in microseconds: `"7d"`, `"30m"`, `"1.5h"`, a timedelta or a number of seconds. From 1 us to 100 years.

    Raises:
        QueryRefused: `value` is anything else; the message names the argument `name`.
    """
    length_us = -1.0
    if isinstance(value, timedelta):
        length_us = value / timedelta(microseconds=1)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        length_us = float(match[1]) * _UNITS_US[match[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        length_us = value * 1e6
    if not 1 <= length_us <= _LONGEST_US:
        refuse(name, value, 'Write "30s", "15m", "12h", "7d" or "2w", a timedelta, or a number of seconds')
    return round(length_us)


OTHER = "(other)"
"""In a row, stands for all values that have no row of their own."""
_MAX_VALUES = 100


class Breakdown(msgspec.Struct, frozen=True):
    """The `by` and `top` of a report in which each person has one value.

    Attributes:
        by: name of a column or a property.
        top: number of values that have rows of their own.
        value: SQL over `events` for the value, as text.
    """

    by: str
    top: int
    value: str

    @classmethod
    def of(cls, by: str | None, top: int, promotions: Sequence[Promotion], taken: Collection[str]) -> Self | None:
        """The breakdown for the arguments `by` and `top` of a report. Returns None if `by` is None.

        Args:
            by: name of a column or a property, or None.
            top: number of values, 1 to 100.
            promotions: the promoted columns.
            taken: names of the report's own columns, which `by` must not have.

        Raises:
            QueryRefused: `by` or `top` is not valid.
        """
        check_whole_number("top", top, _MAX_VALUES)
        if by is None:
            return None
        if not isinstance(by, str) or not by or by.lower() in taken:
            refuse("by", by, f"Name a column or a property, none of {', '.join(taken)}")
        return cls(by, top, f"CAST({column_sql(by, promotions)} AS VARCHAR)")

    @property
    def column(self) -> str:
        """SQL for the report's column: the `value` of the table `named` (see `ranked`), under the name `by`."""
        return f"value AS {quoted(self.by)}"

    def first(self, condition: str) -> str:
        """SQL for an aggregate: the value of the earliest event that meets `condition`, by timestamp and then seq."""
        return f"arg_min_null({self.value}, row(epoch_us(timestamp), seq)) FILTER ({condition})"

    def ranked(self, source: str, people: str, bind: Parameters) -> dict[str, str]:
        """SQL of two tables: `ranked` has `value, nth` for each value of `source`, `named` has `nth, value` to show.

        Args:
            source: table with a column `value`.
            people: aggregate over `source` that ranks the values, largest first; ties are in order of their text.
            bind: parameters of the statement; the values are added to them.
        """
        top = bind(self.top)
        place = f"row_number() OVER (ORDER BY {people} DESC, value NULLS LAST)"
        name = f"CASE WHEN nth > {top} THEN {bind(OTHER)} ELSE min(value) END"
        return {
            "ranked": f"SELECT value, least({place}, {top} + 1) AS nth FROM {source} GROUP BY value",
            "named": f"SELECT nth, {name} AS value FROM ranked GROUP BY nth",
        }
