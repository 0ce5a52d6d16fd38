"""Periods in SQL against Python's own calendar and time zones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import to_us
from lakebed.errors import QueryRefused
from lakebed.reports.calendar import Calendar
from tests.reports.plain_periods import EPOCH, FIRST_WEEKDAY, distance, following, period

GRAINS = ("minute", "hour", "day", "week", "month")
# Clocks are put forward over midnight in São Paulo, Beirut and Cairo, and back to or over it in Havana, Amman, on the
# Azores and in St John's; Apia leaves out a day; offsets of 30 and 45 minutes; half an hour of summer time.
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo"),
    *("America/Havana", "Asia/Amman", "Atlantic/Azores", "America/St_Johns", "Pacific/Apia", "Asia/Kolkata"),
    *("Asia/Kathmandu", "Pacific/Chatham", "Australia/Lord_Howe"),
)
LAST_YEAR = 2022  # later rules may differ between copies of the time zone database
HOUR = 3_600_000_000


@cache
def changes(zone: str) -> tuple[int, ...]:
    """Midnights (UTC) before the clocks of a zone were changed, since 1970; microseconds."""
    values, moment, tz = [], datetime(1970, 1, 1, tzinfo=UTC), ZoneInfo(zone)
    while moment.year < LAST_YEAR:
        if moment.astimezone(tz).utcoffset() != (moment + timedelta(1)).astimezone(tz).utcoffset():
            values.append(to_us(moment))
        moment += timedelta(1)
    return tuple(values)


@st.composite
def instants(draw, zone):
    """Any instants since 1900, and many around clock changes; to the microsecond or to the quarter of an hour."""
    anywhere = st.integers(to_us(datetime(1900, 1, 1, tzinfo=UTC)), to_us(datetime(LAST_YEAR, 1, 1, tzinfo=UTC)))
    if not changes(zone) or draw(st.booleans()):
        return draw(anywhere)
    quarters, more = draw(st.integers(-8, 104)), draw(st.integers(-1, 1))
    return draw(st.sampled_from(changes(zone))) + quarters * HOUR // 4 + more


@pytest.fixture(scope="module")
def cursor():
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def evaluate(cursor, sql, us):
    """The values of `sql` over `ts`, for each instant."""
    rows = cursor.sql(f"SELECT {sql} AS x FROM (SELECT make_timestamptz(unnest($1::BIGINT[])) AS ts)", params=[us])
    return rows.to_arrow_table()["x"].to_pylist()


ANY = st.sampled_from(ZONES).flatmap(
    lambda zone: st.tuples(
        st.just(zone),
        st.sampled_from(GRAINS),
        st.sampled_from(list(FIRST_WEEKDAY)),
        st.lists(instants(zone), min_size=1, max_size=60),
    )
)


@pytest.mark.integration
@settings(max_examples=80, deadline=None)
@given(ANY)
def test_a_period_starts_where_pythons_calendar_has_its_start(cursor, what):
    """`start` of `number` is the wall clock's minute, hour, date, week or month, also before 1970."""
    zone, grain, week_start, us = what
    calendar = Calendar(zone, week_start)
    values = evaluate(cursor, calendar.start(grain, calendar.number(grain, "ts")), us)
    assert values == [period(instant, grain, zone, week_start) for instant in us]


@pytest.mark.integration
@settings(max_examples=40, deadline=None)
@given(ANY)
def test_numbers_of_neighbouring_periods_differ_by_one(cursor, what):
    """The difference of two numbers is the count of periods between them, also where years or clocks change."""
    zone, grain, week_start, us = what
    numbers = evaluate(cursor, Calendar(zone, week_start).number(grain, "ts"), us)
    starts = [period(instant, grain, zone, week_start) for instant in us]
    assert [n - numbers[0] for n in numbers] == [distance(starts[0], start, grain) for start in starts]


@pytest.mark.integration
@settings(max_examples=40, deadline=None)
@given(ANY)
def test_instant_is_the_first_moment_of_a_period(cursor, what):
    """`instant` lies in its period, and the microsecond before it does not."""
    zone, grain, week_start, us = what
    us = [max(instant, 0) for instant in us]  # before 1970 the copies of the database may differ
    calendar = Calendar(zone, week_start)
    for moment, instant in zip(
        evaluate(cursor, calendar.instant(grain, calendar.number(grain, "ts")), us), us, strict=True
    ):
        start = period(instant, grain, zone, week_start)
        assert to_us(moment) <= instant
        assert period(to_us(moment), grain, zone, week_start) == start
        assert period(to_us(moment) - 1, grain, zone, week_start) < start


@pytest.mark.parametrize(
    ("zone", "day", "hours", "starts"),
    [
        ("Europe/Berlin", "2026-03-29", 23, "2026-03-28T23:00:00Z"),
        ("Europe/Berlin", "2026-10-25", 25, "2026-10-24T22:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04", 23, "2018-11-04T03:00:00Z"),  # there is no 00:00
        ("America/Sao_Paulo", "2018-02-17", 25, "2018-02-17T02:00:00Z"),  # ends with 23:00 to 24:00 a second time
        ("Asia/Beirut", "2021-03-28", 23, "2021-03-27T22:00:00Z"),
        ("America/Havana", "2021-11-07", 25, "2021-11-07T04:00:00Z"),  # 00:00 comes twice
        ("Australia/Lord_Howe", "2021-04-04", 24.5, "2021-04-03T13:00:00Z"),
        ("Pacific/Apia", "2011-12-31", 24, "2011-12-30T10:00:00Z"),  # the day before was left out
        ("Asia/Kathmandu", "2026-01-01", 24, "2025-12-31T18:15:00Z"),
        ("UTC", "1969-12-31", 24, "1969-12-31T00:00:00Z"),
    ],
)
def test_days_on_which_clocks_change_have_other_lengths(cursor, zone, day, hours, starts):
    """A day begins at the first moment with its date, and lasts as long as clocks show that date."""
    calendar = Calendar(zone)
    moment = datetime.fromisoformat(starts)
    number = calendar.number("day", "ts")
    (first,) = evaluate(cursor, calendar.instant("day", number), [to_us(moment) + HOUR])
    (after,) = evaluate(cursor, calendar.instant("day", f"{number} + 1"), [to_us(moment) + HOUR])
    assert first == moment
    assert (after - first) / timedelta(hours=1) == hours
    assert evaluate(cursor, calendar.start("day", number), [to_us(moment)]) == [date.fromisoformat(day)]


def test_every_grain_works_from_the_year_1_on(cursor):
    """Numbers of periods are negative before 1970, and rounded down there too."""
    us = [to_us(datetime(year, 1, 1, 12, tzinfo=UTC)) for year in (1, 1582, 1899, 1970, 9998)]
    for grain in GRAINS:
        calendar = Calendar()
        values = evaluate(cursor, calendar.start(grain, calendar.number(grain, "ts")), us[1:])
        assert values == [period(instant, grain) for instant in us[1:]]
    (n,) = evaluate(cursor, Calendar().number("day", "ts"), us[:1])
    assert n == (date(1, 1, 1) - EPOCH.date()).days


def test_an_hour_that_clocks_repeat_is_two_hours(cursor):
    """Where the clock of Berlin is put back, 02:00 to 03:00 comes twice; hours are those of UTC."""
    us = to_us(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    first, second = evaluate(cursor, Calendar("Europe/Berlin").number("hour", "ts"), [us, us + HOUR])
    assert second == first + 1
    assert following(period(us, "hour"), "hour") == period(us + HOUR, "hour")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("Mars/Olympus", "monday"), "Europe/Berlin"),
        (("", "monday"), "Europe/Berlin"),
        (("../etc/passwd", "monday"), "Europe/Berlin"),
        ((7, "monday"), "Europe/Berlin"),
        (("UTC", "friday"), "monday, sunday, saturday"),
        (("UTC", None), "monday, sunday, saturday"),
        (("UTC", "monday", "year"), "minute, hour, day"),
        (("UTC", "monday", "minute", ("hour", "day")), "hour, day"),
    ],
)
def test_invalid_arguments_name_the_valid_ones(arguments, hint):
    """An unknown zone, week start or grain is refused, and the hint has valid ones."""
    with pytest.raises(QueryRefused, match=hint):
        Calendar.of(*arguments)
