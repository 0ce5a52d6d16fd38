"""Time: the only caller of the real clock, the units, and the one parser of datetimes, dates, texts and numbers.

Wall time is an integer of microseconds since 1970-01-01 UTC; durations are monotonic seconds. Each operation reads the
clock once and passes that value on, so that nothing expires halfway.

Two rules hold wherever a moment is parsed. A naive datetime is refused: the intended time zone is unknown, and a wrong
guess gives a wrong answer without an error. Text without a zone means UTC, as in SQL and in Segment's API.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol

from lakebed.errors import InvalidAsOf

__all__ = [
    "DAY_S",
    "DAY_US",
    "EPOCH",
    "HOUR_S",
    "HOUR_US",
    "MINUTE_S",
    "MINUTE_US",
    "MOMENT_HINT",
    "SECOND_US",
    "WEEK_US",
    "YEAR_1_US",
    "Clock",
    "Instant",
    "ManualClock",
    "Moment",
    "SystemClock",
    "from_us",
    "parse_as_of",
    "parse_day",
    "parse_epoch",
    "parse_iso",
    "parse_moment",
    "to_us",
]

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
"""A day of UTC. Days of a zone may be longer or shorter: see rollups/buckets.py and reports/calendar.py."""
WEEK_US = 7 * DAY_US
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400

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
    """The machine's clock. Calls `time` by its module, so that freezegun can move the clock (on the calling thread)."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until `advance` or `step` moves it. For tests.

    Args:
        start: the wall time at the start, as an aware datetime.
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
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: give it one, for example tzinfo=UTC")
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970-01-01 UTC. Raises OverflowError outside years 1 to 9999."""
    return EPOCH + timedelta(microseconds=us)


YEAR_1_US = to_us(datetime.min.replace(tzinfo=UTC))
"""The first moment that a datetime can hold in Python, also for results of DuckDB. No event is earlier."""


Instant = datetime | str
"""The type of an `as_of` argument: an aware datetime or ISO 8601 text."""
Moment = datetime | date | str
"""The type of a moment argument: an aware datetime, a date (its midnight UTC) or ISO 8601 text."""

MOMENT_HINT = (
    "Give an aware datetime, a date, or ISO 8601 text such as '2026-01-15T12:00:00Z' (without a zone it means UTC)"
)
_MAX_NUMBER = 1e15
_SECONDS_BELOW = 1e12  # a number below this is epoch seconds, else milliseconds (Segment's collectors agree on this)


def parse_moment(value: Moment) -> int:
    """Microseconds since 1970-01-01 UTC of an aware datetime, a date (its midnight UTC) or ISO 8601 text.

    Raises:
        ValueError: `value` is anything else. Naive datetimes and numbers are refused, too.
    """
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, date):
        return to_us(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is not a datetime, a date or ISO 8601 text")  # noqa: TRY004 - one error for each invalid moment
    return to_us(parse_iso(value))


def parse_as_of(as_of: Moment | None, now_us: int) -> int | None:
    """Microseconds of `as_of` (a date is its midnight UTC). None stays None and means the present.

    Raises:
        InvalidAsOf: `as_of` is not a moment, or is later than `now_us`: an answer for the future could still change.
    """
    if as_of is None:
        return None
    try:
        us = parse_moment(as_of)
    except ValueError as error:
        raise InvalidAsOf(f"as_of: {error}", hint=MOMENT_HINT, value=as_of) from error
    if us > now_us:
        raise InvalidAsOf(
            f"as_of {from_us(us).isoformat()} lies in the future (now is {from_us(now_us).isoformat()})",
            hint="Its answer could still change; ask without as_of for the present",
            value=as_of,
        )
    return us


def parse_day(value: Moment) -> date:
    """The day of a moment, in UTC. A date is returned as it is. Raises ValueError as `parse_moment` does."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return from_us(parse_moment(value)).date()


def parse_iso(text: str, zone: tzinfo = UTC) -> datetime:
    """The aware datetime that ISO 8601 `text` names.

    Args:
        text: a date or a time, such as "2026-01-15" or "2026-01-15T12:00:00+01:00".
        zone: the zone for a text without a zone.

    Raises:
        ValueError: `text` is not an ISO 8601 date or time.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is not an ISO 8601 time") from None


def parse_epoch(number: float) -> int:
    """Microseconds since 1970-01-01 UTC of a number of seconds, or of milliseconds if its magnitude is 1e12 or more.

    Raises:
        ValueError: the absolute value of `number` is 1e15 or more, or `number` is NaN.
    """
    if not -_MAX_NUMBER < number < _MAX_NUMBER:
        raise ValueError(f"{str(number)[:40]} is not a number of seconds or milliseconds since 1970")
    return round(number * SECOND_US) if abs(number) < _SECONDS_BELOW else round(number * 1_000)
