"""The only caller of the real clock, and the units of time.

Wall time is an integer of microseconds since 1970-01-01 UTC; durations are monotonic seconds. Each operation reads the
clock once and passes that value on, so that nothing expires halfway.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = [
    "DAY_US",
    "EPOCH",
    "HOUR_US",
    "MINUTE_US",
    "SECOND_US",
    "WEEK_US",
    "YEAR_1_US",
    "Clock",
    "ManualClock",
    "SystemClock",
    "from_us",
    "to_us",
]

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
"""A day of UTC. Days of a zone may be longer or shorter: see rollups/buckets.py and reports/calendar.py."""
WEEK_US = 7 * DAY_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """The source of time of an object."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC. May step back."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment. Never steps back."""
        ...


class SystemClock:
    """The machine's clock. Calls `time` by its module, so that freezegun can move it (on the calling thread)."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until `advance` or `step` moves it. For tests.

    Args:
        start: first wall time, aware.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now_us = to_us(start)
        self._monotonic = 0.0

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC."""
        return self._now_us

    def monotonic(self) -> float:
        """The sum of all `advance` calls, in seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s: use step() to move the wall clock alone")
        self._now_us += round(seconds * SECOND_US)
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Move only the wall clock, in either direction, as an operator or NTP does."""
        self._now_us += round(seconds * SECOND_US)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of an aware datetime. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: give it one, for example tzinfo=UTC")
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970-01-01 UTC. Raises OverflowError outside years 1 to 9999."""
    return EPOCH + timedelta(microseconds=us)


YEAR_1_US = to_us(datetime.min.replace(tzinfo=UTC))
"""The first moment of a datetime, in Python and in what DuckDB gives: no event is earlier."""
