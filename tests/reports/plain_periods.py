"""Periods of a wall clock, by Python's calendar: the oracle of every report that counts by period."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEPS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(1), "week": timedelta(7)}
FIRST_WEEKDAY = {"monday": 0, "saturday": 5, "sunday": 6}


def period(us: int, grain: str, tz: str = "UTC", week_start: str = "monday") -> date | datetime:
    """The start of the period of an instant, as reports write it."""
    moment = EPOCH + timedelta(microseconds=us)
    if grain == "hour":
        return moment.replace(minute=0, second=0, microsecond=0)
    if grain == "minute":
        return moment.replace(second=0, microsecond=0)
    day = moment.astimezone(ZoneInfo(tz)).date()
    if grain == "week":
        return day - timedelta((day.weekday() - FIRST_WEEKDAY[week_start]) % 7)
    return day.replace(day=1) if grain == "month" else day


def following(start: date | datetime, grain: str) -> date | datetime:
    """The period after the one that starts there."""
    if grain == "month":
        return (start + timedelta(days=32)).replace(day=1)
    return (
        start
        + {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(1), "week": timedelta(7)}[grain]
    )


def distance(first: date | datetime, later: date | datetime, grain: str) -> int:
    """The number of periods between two starts."""
    if grain == "month":
        return (later.year - first.year) * 12 + later.month - first.month
    step = following(first, grain) - first
    return round((later - first) / step)


def periods(first: date | datetime, last: date | datetime, grain: str) -> list[date | datetime]:
    """All starts from one to another, both included."""
    starts = []
    while first <= last:
        starts.append(first)
        first = following(first, grain)
    return starts
