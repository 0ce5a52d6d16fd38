import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.clock import EPOCH, ManualClock, SystemClock, from_us, to_us


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
