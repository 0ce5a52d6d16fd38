"""The clock moves only when told; moments are parsed in one way."""

from __future__ import annotations

import math
import time
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.clock import (
    EPOCH,
    ManualClock,
    SystemClock,
    from_us,
    parse_as_of,
    parse_day,
    parse_epoch,
    parse_iso,
    parse_moment,
    to_us,
)
from lakebed.errors import InvalidAsOf


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_and_datetimes_are_one_to_one(moment):
    """Every datetime of the years 1 to 9999 survives the way there and back, to the microsecond."""
    assert from_us(to_us(moment)) == moment


@given(st.integers(-(10**16), 10**17))
def test_every_integer_has_a_datetime_or_overflows(us):
    """from_us gives the one moment of an integer, or raises OverflowError outside years 1 to 9999."""
    try:
        moment = from_us(us)
    except OverflowError:
        assert not to_us(datetime.min.replace(tzinfo=UTC)) <= us <= to_us(datetime.max.replace(tzinfo=UTC))
    else:
        assert to_us(moment) == us


def test_aware_datetimes_are_accepted_and_naive_ones_refused():
    """to_us takes any zone, and no naive time: it would be read as another moment on another machine."""
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_us(moment) == to_us(datetime(2026, 1, 1, 6, 30, tzinfo=UTC))
    assert to_us(EPOCH) == 0
    with pytest.raises(ValueError, match="no time zone"):
        to_us(datetime(2026, 1, 1))  # noqa: DTZ001 - a naive time is the point


def test_a_manual_clock_stands_still_until_it_is_moved():
    """advance moves both clocks, step the wall clock alone; time does not pass by itself, nor go back by advance."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    start = clock.now_us()
    assert (clock.now_us(), clock.monotonic()) == (start, 0)
    clock.advance(1.5)
    assert (clock.now_us() - start, clock.monotonic()) == (1_500_000, 1.5)
    clock.step(-3600)
    assert (clock.now_us() - start, clock.monotonic()) == (1_500_000 - 3_600_000_000, 1.5)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
    assert clock.monotonic() == 1.5


def test_the_system_clock_reads_the_machine():
    """now_us is the machine's time in microseconds; monotonic does not go back."""
    clock = SystemClock()
    before, now, after = time.time_ns() // 1000, clock.now_us(), time.time_ns() // 1000
    assert before <= now <= after
    assert clock.monotonic() <= clock.monotonic()


NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
NOON_US = to_us(NOON)


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-01-15T12:00:00Z",
        "2026-01-15 12:00",
        "2026-01-15T14:00:00+02:00",
    ],
)
def test_one_moment_has_many_forms(value):
    """Aware datetimes of any zone and ISO 8601 text name the same moment; text without a zone is UTC."""
    assert parse_moment(value) == NOON_US
    assert parse_day(value) == NOON.date()


def test_a_date_is_its_midnight():
    """A date is its midnight in UTC, and as a day it is itself."""
    assert parse_moment(date(2026, 1, 15)) == parse_moment("2026-01-15") == NOON_US - 12 * 3_600_000_000
    assert parse_day(date(2026, 1, 15)) == date(2026, 1, 15)


@pytest.mark.parametrize("value", [NOON.replace(tzinfo=None), datetime.min, datetime.max])  # noqa: DTZ901 - naive
def test_naive_datetimes_are_refused(value):
    """A naive datetime is refused, and the error says what to write instead."""
    for parse in (parse_moment, parse_day):
        with pytest.raises(ValueError, match=r"no time zone.*tzinfo=UTC"):
            parse(value)


@pytest.mark.parametrize("value", ["yesterday", "", "2026-13-01", "x" * 10_000, 17, 1.5, True, None, object(), []])
def test_invalid_values_are_refused_in_a_short_sentence(value):
    """Text in another form and values of other types are one error, however long they are."""
    for parse in (parse_moment, parse_day):
        with pytest.raises(ValueError, match="is not a") as raised:
            parse(value)
        assert len(str(raised.value)) < 80


@given(st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=-11))])))
def test_text_and_datetime_agree(moment):
    """A datetime and its ISO 8601 text are the same moment, over all years that Python has."""
    assert parse_moment(moment.isoformat()) == parse_moment(moment) == (moment - EPOCH) // timedelta(microseconds=1)


def test_a_zone_in_the_text_overrides_the_default():
    """A zone in the text wins over the default one."""
    berlin = ZoneInfo("Europe/Berlin")
    assert parse_iso("2026-01-15T13:00", berlin) == NOON
    assert parse_iso("2026-01-15T12:00Z", berlin) == NOON


def test_numbers_are_seconds_or_milliseconds():
    """Below 1e12 a number is seconds, from there on milliseconds; fractions count."""
    assert from_us(parse_epoch(1_768_478_400)) == from_us(parse_epoch(1_768_478_400_000)) == NOON
    assert parse_epoch(-1.5) == -1_500_000
    assert parse_epoch(1e12) == 10**15
    for number in (1e15, -1e15, 10**18, math.nan, math.inf):
        with pytest.raises(ValueError, match="seconds or milliseconds since 1970"):
            parse_epoch(number)


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-01-15T12:00:00Z",
        "2026-01-15 12:00",
        "2026-01-15T14:00:00+02:00",
    ],
)
def test_as_of_reads_every_form(value):
    """Aware datetimes and ISO text are one instant; text without a zone is UTC."""
    assert parse_as_of(value, NOON_US) == NOON_US


def test_no_as_of_is_the_present():
    """Without an instant there is no cut."""
    assert parse_as_of(None, NOON_US) is None


@pytest.mark.parametrize("value", ["yesterday", "", "2026-13-01", NOON.replace(tzinfo=None), 17, 1.5, object()])
def test_as_of_that_is_not_a_moment(value):
    """What cannot be read is InvalidAsOf, naive datetimes and numbers included, and says what to give."""
    with pytest.raises(InvalidAsOf, match="Give an aware datetime"):
        parse_as_of(value, NOON_US)


def test_as_of_in_the_future():
    """An instant after now is refused: its answer could still change. Now itself is not."""
    assert parse_as_of(NOON, NOON_US) == NOON_US
    with pytest.raises(InvalidAsOf, match="lies in the future"):
        parse_as_of(NOON + timedelta(microseconds=1), NOON_US)
