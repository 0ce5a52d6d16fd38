"""Lengths of time as callers give them."""

from __future__ import annotations

import re
from datetime import timedelta

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US
from lakebed.errors import QueryRefused

__all__ = ["Duration", "duration_us"]

Duration = timedelta | str | int | float

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)\s*")
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


def duration_us(name: str, value: Duration) -> int:
    """Microseconds of `"7d"`, `"30m"`, `"1.5h"`, a timedelta, or a number of seconds; more than nothing.

    Raises:
        QueryRefused: for anything else; `name` says which argument it was.
    """
    found = -1.0
    if isinstance(value, timedelta):
        found = value / timedelta(microseconds=1)
    elif isinstance(value, str) and (match := _FORM.fullmatch(value)):
        found = float(match[1]) * _UNITS_US[match[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = value * SECOND_US
    if not 1 <= found <= _LONGEST_US:
        hint = 'Write "30s", "15m", "12h", "7d" or "2w", a timedelta, or a number of seconds'
        raise QueryRefused(f"{name} is {str(value)[:40]!r}", hint=hint)
    return round(found)
