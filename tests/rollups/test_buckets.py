from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.clock import from_us, to_us
from lakebed.rollups.buckets import bucket_dates, bucket_starts

HOUR = 3_600_000_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # clocks changed at 00:01 until 2011, half-hour offset
    "America/Havana",  # midnight comes twice
    "Asia/Beirut",  # midnight is skipped
    "Asia/Kathmandu",  # +05:45
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # had no 2011-12-30
    "Europe/Amsterdam",  # +00:19:32 until 1937
    "Africa/Casablanca",
]


def starts(times, grain, zone):
    return bucket_starts(np.array(times, np.int64), grain, zone).tolist()


def dates(times, grain, zone):
    return bucket_dates(bucket_starts(np.array(times, np.int64), grain, zone), grain, zone).tolist()


def _day_number(day):
    return (day - date(1970, 1, 1)).days


_times = st.one_of(
    st.integers(to_us(datetime(1900, 1, 1, tzinfo=UTC)), to_us(datetime(2100, 1, 1, tzinfo=UTC))),
    # Around the changes of clocks of 2026, 2010 and 2011, and Apia's missing day.
    st.builds(
        lambda day, offset: to_us(datetime(*day, tzinfo=UTC)) + offset,
        st.sampled_from(
            [
                (2026, 3, 29),
                (2026, 10, 25),
                (2026, 3, 8),
                (2026, 11, 1),
                (2026, 4, 4),
                (2026, 10, 3),
                (2026, 3, 28),
                (2010, 3, 14),
                (2010, 11, 7),
                (2011, 12, 30),
                (1937, 7, 1),
                (2026, 10, 24),
                (2026, 3, 7),
            ]
        ),
        st.integers(-14 * HOUR, 38 * HOUR),
    ),
)


@given(st.lists(_times, min_size=1, max_size=20), st.sampled_from(ZONES))
def test_hours(times, zone):
    """An hour holds its times, has one offset, and begins at a full local hour or at a change of clocks."""
    tz = ZoneInfo(zone)
    for us, start in zip(times, starts(times, "hour", zone), strict=True):
        assert start <= us < start + HOUR
        here, there = from_us(us).astimezone(tz), from_us(start).astimezone(tz)
        assert here.utcoffset() == there.utcoffset()
        full = (there.minute, there.second, there.microsecond) == (0, 0, 0)
        assert full or from_us(start - 1).astimezone(tz).utcoffset() != there.utcoffset()
        assert starts([us], "hour", zone) == starts([start], "hour", zone) == [start]


@given(st.lists(_times, min_size=1, max_size=20), st.sampled_from(ZONES), st.sampled_from(["day", "month"]))
def test_days_and_months(times, zone, grain):
    """A day or month is that of the local date; its start is one moment, which has that date."""
    tz = ZoneInfo(zone)
    known = {}
    for us, start, day in zip(times, starts(times, grain, zone), dates(times, grain, zone), strict=True):
        local = from_us(us).astimezone(tz).date()
        assert day == _day_number(local if grain == "day" else local.replace(day=1))
        assert known.setdefault(day, start) == start
        there = from_us(start).astimezone(tz)
        assert there == datetime(local.year, local.month, local.day if grain == "day" else 1, tzinfo=tz) or (
            there.date().toordinal() == day + date(1970, 1, 1).toordinal()
        )
        assert starts([us], grain, zone) == [start]


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 1), 24), ((2024, 2, 29), 24)]
)
def test_berlin_days_have_23_24_or_25_hours(day, hours):
    """On days of a change of clocks a day has the hours that it has, each a bucket of its own."""
    midnight = to_us(datetime(*day, tzinfo=ZoneInfo("Europe/Berlin")))
    times = [midnight + i * HOUR // 4 for i in range(-4, 4 * 26)]
    assert starts(times, "day", "Europe/Berlin").count(midnight) == 4 * hours
    inside = [us for us, start in zip(times, starts(times, "day", "Europe/Berlin"), strict=True) if start == midnight]
    assert len(set(starts(inside, "hour", "Europe/Berlin"))) == hours


def test_a_change_within_an_hour_begins_a_bucket():
    """Lord Howe goes back from 02:00 to 01:30: the half hour that comes twice is not mixed."""
    change = to_us(datetime(2026, 4, 4, 15, tzinfo=UTC))
    times = [change - 1, change, change + HOUR // 2 - 1, change + HOUR // 2]
    assert starts(times, "hour", "Australia/Lord_Howe") == [change - HOUR, change, change, change + HOUR // 2]


@pytest.mark.parametrize("grain", ["hour", "day", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles", "Europe/Berlin"])
def test_the_ends_of_the_calendar_have_buckets(grain, zone):
    """No time that an event can have raises, and each bucket has a time and a date that can be shown."""
    ends = [to_us(datetime.min.replace(tzinfo=UTC)), -1, 0, to_us(datetime.max.replace(tzinfo=UTC))]
    for us, start in zip(ends, starts(ends, grain, zone), strict=True):
        assert start - 24 * HOUR < us < start + 32 * 24 * HOUR
        assert grain != "hour" or from_us(start) >= datetime.min.replace(tzinfo=UTC)
    first, last = _day_number(date.min), _day_number(date.max)
    assert grain == "hour" or all(first <= day <= last for day in dates(ends, grain, zone))


def test_no_times():
    """An empty batch has no buckets, in any zone."""
    for zone in ("UTC", "Europe/Berlin"):
        for grain in ("hour", "day", "month"):
            assert starts([], grain, zone) == []
