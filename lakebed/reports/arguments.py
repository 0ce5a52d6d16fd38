"""Arguments of reports: whole numbers, numbers, texts, choices and durations, checked here and nowhere else.

However a report is called (Python, HTTP, RPC, CLI, MCP), its arguments pass up to three checks. Each owns one thing:

- `interface.signature.Signature.bind`, for calls over a network: names, types, and the most rows that may be asked for.
- This module and the `of` of `Calendar`, `EventFilter`, `Breakdown` and `FunnelAttempts`: values. Python callers come
  straight here, so these checks look at types, too.
- DuckDB, by `ReportContext.check_condition`: whether a condition in SQL is one expression that only reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NoReturn

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US
from lakebed.errors import QueryRefused

__all__ = [
    "MAX_ROWS",
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
_UNITS_US = {
    "ms": 1_000,
    "s": SECOND_US,
    "m": MINUTE_US,
    "min": MINUTE_US,
    "h": HOUR_US,
    "d": DAY_US,
    "w": WEEK_US,
}
_LONGEST_US = 100 * 366 * DAY_US


def refuse(name: str, value: object, hint: str) -> NoReturn:
    """Raise QueryRefused for the argument `name`. The message has its value, cut short, and the `hint` what to give."""
    raise QueryRefused(f"{name} is {str(value)[:40]!r}", hint=hint)


def check_whole_number(name: str, value: Any, maximum: int, *, minimum: int = 1, hint: str | None = None) -> None:
    """Raise QueryRefused unless `value` is an int from `minimum` to `maximum`. True is refused: it would count as 1."""
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
    """Microseconds of `"7d"`, `"30m"`, `"1.5h"`, a timedelta, or a number of seconds: from 1 up to 100 years.

    Raises:
        QueryRefused: `value` is anything else; the message says that it is the argument `name`.
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
