from __future__ import annotations

import copy
import functools
import pickle
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from lakebed.clock import EPOCH, from_us, to_us
from lakebed.errors import InvalidSchedule
from lakebed.scheduling.schedule import Schedule, ScheduledMethod, every, schedules_of, zone

MINUTE = timedelta(minutes=1)
ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe", "Asia/Kathmandu"])
# Days on which Berlin or New York change their clocks, and their neighbours, are as likely as all others together.
CHANGES = [datetime(*day, tzinfo=UTC) for day in [(2026, 3, 8), (2026, 3, 29), (2026, 10, 25), (2026, 11, 1)]]
MOMENTS = st.one_of(
    st.builds(
        lambda day, seconds: day + timedelta(seconds=seconds), st.sampled_from(CHANGES), st.integers(-200_000, 200_000)
    ),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants it so
).map(to_us)
DAILY = st.builds(
    lambda base, minute, zone: Schedule(days=base.days, minute=minute, timezone=zone),
    st.sampled_from([every.day, every.weekday, every.weekend, every.week, every.Monday, every.Sunday]),
    st.one_of(st.integers(0, 240), st.integers(0, 1439)),
    ZONES,
)


def walk(schedule, start_us):
    """The plain truth, minute by minute: a moment is when the wall clock first shows, or leaps over, a planned time."""
    where = ZoneInfo(schedule.timezone)
    moment = from_us(start_us).replace(second=0, microsecond=0) - timedelta(days=3)
    seen = moment.astimezone(where).replace(tzinfo=None)  # the latest wall time shown so far
    while True:
        moment += MINUTE
        shown = moment.astimezone(where).replace(tzinfo=None)
        day = shown.date()
        for planned_day in {day, seen.date()}:
            planned = datetime.combine(planned_day, datetime.min.time()) + schedule.minute * MINUTE
            if seen < planned <= shown and planned.weekday() in schedule.days:
                yield to_us(moment)
                break
        seen = max(seen, shown)


def utc(text):
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def moments(schedule, start, count, default="UTC"):
    texts, us = [], utc(start)
    for _ in range(count):
        us = schedule.next_after(us, default)
        texts.append(from_us(us).strftime("%a %m-%d %H:%M"))
    return texts


@pytest.mark.integration
@settings(max_examples=120, deadline=None)
@given(schedule=DAILY, us=MOMENTS)
@example(schedule=every.day.at("2:30am").tz("Europe/Berlin"), us=utc("2026-03-28T12:00"))
@example(schedule=every.day.at("2:30am").tz("Europe/Berlin"), us=utc("2026-10-25T00:30"))
@example(schedule=every.day.at("2am").tz("America/New_York"), us=utc("2026-03-08T06:59"))
@example(schedule=every.day.at("1am").tz("America/New_York"), us=utc("2026-11-01T05:00"))
def test_next_after_is_the_first_moment_of_a_slow_walk(schedule, us):
    """next_after gives what a minute-by-minute walk along the wall clock finds first, through both changes of DST."""
    assert schedule.next_after(us) == next(moment for moment in walk(schedule, us) if moment > us)


@settings(max_examples=300, deadline=None)
@given(
    schedule=st.one_of(DAILY, st.sampled_from([every.minute, every.hour, every(7).seconds, every(5).minutes])),
    us=MOMENTS,
    span_s=st.one_of(st.integers(0, 3 * 86400), st.integers(0, 400_000_000)),
)
def test_latest_due_is_the_moment_before_the_next(schedule, us, span_s):
    """latest_due gives the last moment of (after, now], and None exactly when next_after lies beyond now."""
    now_us = us + span_s * 1_000_000
    due = schedule.latest_due(us, now_us)
    if due is None:
        assert schedule.next_after(us) > now_us
    else:
        assert us < due <= now_us
        assert schedule.next_after(due) > now_us
        assert schedule.next_after(due - 1) == due
        assert schedule.latest_due(due, now_us) is None


def test_times_that_do_not_exist_fire_once_after_the_gap():
    """02:30 on the night of the change fires when the gap ends, once; the days around it at 02:30."""
    at = every.day.at("2:30am")
    assert moments(at.tz("Europe/Berlin"), "2026-03-27T12:00", 3) == [
        "Sat 03-28 01:30",
        "Sun 03-29 01:00",
        "Mon 03-30 00:30",
    ]
    assert moments(at.tz("America/New_York"), "2026-03-07T00:00", 3) == [
        "Sat 03-07 07:30",
        "Sun 03-08 07:00",
        "Mon 03-09 06:30",
    ]
    # A gap of a whole day: Samoa had no 30 December 2011.
    assert moments(every.day.at("4am", tz="Pacific/Apia"), "2011-12-29T00:00", 4) == [
        "Thu 12-29 14:00",
        "Fri 12-30 10:00",
        "Fri 12-30 14:00",
        "Sat 12-31 14:00",
    ]


def test_times_that_come_twice_fire_once():
    """02:30 comes twice on the night of the change back; the first one counts."""
    at = every.day.at("2:30am", tz="Europe/Berlin")
    assert moments(at, "2026-10-24T12:00", 2) == ["Sun 10-25 00:30", "Mon 10-26 01:30"]
    at = every.day.at("1:30am", tz="America/New_York")
    assert moments(at, "2026-10-31T12:00", 2) == ["Sun 11-01 05:30", "Mon 11-02 06:30"]


def test_a_change_that_goes_back_over_midnight():
    """At 00:01 the clocks went back to 23:01 of the day before: midnight had been, and is not due a second time."""
    at = every.day.at("midnight", tz="America/Goose_Bay")
    assert moments(at, "2010-11-06T12:00", 2) == ["Sun 11-07 03:00", "Mon 11-08 04:00"]
    assert at.latest_due(utc("2010-11-06T12:00"), utc("2010-11-07T03:30")) == utc("2010-11-07T03:00")
    assert at.next_after(utc("2010-11-07T03:30")) == utc("2010-11-08T04:00")


def test_the_default_zone_holds_where_none_is_named():
    """`schedule_timezone` applies to schedules without a zone, and only to them."""
    assert moments(every.day.at("3am"), "2026-07-01T12:00", 1) == ["Thu 07-02 03:00"]
    assert moments(every.day.at("3am"), "2026-07-01T12:00", 1, "Europe/Berlin") == ["Thu 07-02 01:00"]
    assert moments(every.day.at("3am").tz("UTC"), "2026-07-01T12:00", 1, "Europe/Berlin") == ["Thu 07-02 03:00"]


def test_weekdays():
    """Each word stands for its days."""
    start = "2026-01-01T12:00"  # a Thursday
    assert moments(every.week, start, 2) == ["Mon 01-05 00:00", "Mon 01-12 00:00"]
    assert moments(every.weekend.at("noon"), start, 3) == ["Sat 01-03 12:00", "Sun 01-04 12:00", "Sat 01-10 12:00"]
    assert moments(every.weekday.at("9am"), start, 2) == ["Fri 01-02 09:00", "Mon 01-05 09:00"]
    days = [every.Monday, every.Tuesday, every.Wednesday, every.Thursday, every.Friday, every.Saturday, every.Sunday]
    firsts = [moments(day.at("17:00"), start, 1)[0] for day in days]
    assert firsts == [
        "Mon 01-05 17:00",
        "Tue 01-06 17:00",
        "Wed 01-07 17:00",
        "Thu 01-01 17:00",
        "Fri 01-02 17:00",
        "Sat 01-03 17:00",
        "Sun 01-04 17:00",
    ]


@settings(max_examples=100)
@given(st.integers(1, 100_000), st.sampled_from(["seconds", "minutes", "hours"]), MOMENTS)
def test_intervals_are_aligned_to_the_epoch(number, unit, us):
    """Interval moments are multiples since 1970 UTC whenever the process started."""
    step = timedelta(**{unit: number})
    if step > timedelta(days=366):
        with pytest.raises(InvalidSchedule, match="longer than 366 days"):
            getattr(every(number), unit)
        return
    moment = getattr(every(number), unit).next_after(us)
    assert (from_us(moment) - EPOCH) % step == timedelta(0)
    assert us < moment <= us + step // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "minute"),
    [
        ("3am", 180),
        ("3 AM", 180),
        ("9:30am", 570),
        ("12am", 0),
        ("12:05am", 5),
        ("12pm", 720),
        ("5pm", 1020),
        ("17:00", 1020),
        ("0:00", 0),
        ("23:59", 1439),
        ("noon", 720),
        (" Midnight ", 0),
    ],
)
def test_times_that_are_read(text, minute):
    """Both clocks and the two words are read."""
    assert every.day.at(text).minute == minute


@pytest.mark.parametrize(
    "text", ["", "3", "13pm", "0am", "24:00", "12:60", "9:5am", "3am tomorrow", "-1:00", "3:00:00", "٣am", 3, None]
)
def test_times_that_are_not_read(text):
    """Anything else is refused, with what is understood."""
    with pytest.raises(InvalidSchedule, match="is not a time of day") as raised:
        every.day.at(text)
    assert "noon" in raised.value.hint


def test_shortcuts():
    """`.at6am` and its kind are `.at("6am")`."""
    assert every.day.at6am == every.day.at("6am")
    assert every.Monday.at12pm == every.Monday.at("noon")
    assert every.weekday.atnoon == every.weekday.at("12pm")
    assert every.day.atmidnight.minute == 0
    assert every.day.at5pm.tz("Europe/Berlin") == every.day.at("5pm", tz="Europe/Berlin")


def test_schedules_are_values():
    """Schedules are equal, hashable, copied and pickled by what they say."""
    assert every(60).minutes == every(1).hour == every.hour
    assert len({every.day, every.day, every.day.at("3am"), every.week, every.Monday}) == 3
    assert copy.deepcopy(every.day.at3am) == pickle.loads(pickle.dumps(every.day.at3am)) == every.day.at("3am")  # noqa: S301 - just pickled
    with pytest.raises(AttributeError):
        every.day.minute = 5


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (every.Sunday.at("4am").tz("UTC"), "every Sunday at 04:00 UTC"),
        (every.day.at("9:30am"), "every day at 09:30"),
        (every.week, "every Monday at 00:00"),
        (every.weekday.at5pm, "every weekday at 17:00"),
        (every.weekend, "every weekend at 00:00"),
        (every.minute, "every minute"),
        (every(1).hour, "every hour"),
        (every(5).minutes, "every 5 minutes"),
        (every(90).seconds, "every 90 seconds"),
        (Schedule(days=(0, 2)), "every Monday and Wednesday at 00:00"),
    ],
)
def test_schedules_say_what_they_are(schedule, text):
    """str() reads like the sentence that made it."""
    assert str(schedule) == text


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        (lambda: every.second, "every.second"),
        (lambda: every.Funday, "every.Funday"),
        (lambda: every(5).fortnights, "fortnights"),
        (lambda: every(0), "every\\(0\\)"),
        (lambda: every(-1), "every\\(-1\\)"),
        (lambda: every(1.5), "1.5"),
        (lambda: every(True), "True"),
        (lambda: every("5"), "'5'"),
        (lambda: every(10**9).hours, "366 days"),
        (lambda: every.day.at13pm, "13pm"),
        (lambda: every.day.on("x"), "no .on"),
        (lambda: every.hour.at("3am"), "every hour"),
        (lambda: every.hour.tz("UTC"), "cannot have a time zone"),
        (lambda: every.day.at("3am").at("4am"), "also be at '4am'"),
        (lambda: every.day.tz("Europe/Atlantis"), "Europe/Atlantis"),
        (lambda: every.day.tz("../etc/passwd"), "not a time zone"),
        (lambda: every.day.tz(""), "not a time zone"),
        (lambda: every.day.tz("Europe"), "not a time zone"),
        (lambda: every.day.at("3am", tz=5), "5 is not a time zone"),
        (lambda: every.hour(3), "cannot run 3"),
        (lambda: every.hour(int), "cannot run"),
        (lambda: every.hour([].append), "cannot be attached"),
    ],
)
def test_what_is_not_understood(wrong, fact):
    """Bad input raises InvalidSchedule with the fact and a hint."""
    with pytest.raises(InvalidSchedule, match=fact) as raised:
        wrong()
    assert raised.value.hint


def test_unknown_words_are_attribute_errors_too():
    """hasattr works, and introspection of private names is not answered with a lecture."""
    assert not hasattr(every, "second")
    assert not hasattr(every.day, "soon")
    assert not hasattr(every, "__wrapped__")


def test_zone_gives_the_zone():
    """zone() gives what zoneinfo gives."""
    assert zone("Europe/Berlin") is ZoneInfo("Europe/Berlin")


def test_a_decorated_method_is_the_function_itself():
    """The decorator returns the function unchanged; calling it with a function is the same thing."""

    async def warm(self):
        """Do nothing."""

    assert every.hour(warm) is warm
    assert every.day.at("3am")(warm) is warm


class Base:
    @every.hour
    async def warm(self):
        """Stay scheduled."""

    @every.day.at("3am")
    @every.Sunday.at("4am")
    def report(self):
        """Have two schedules."""

    @every.minute
    def dropped(self):
        """Be overridden without a schedule."""

    @every.minute
    def moved(self):
        """Be overridden with another."""

    def plain(self):
        """Have none."""

    nightly = every.day.at("2am")  # a schedule in the class body is not a method


class Derived(Base):
    def dropped(self):
        """Override."""

    @every(5).minutes
    def moved(self):
        """Override."""

    @every.hour
    @every(60).minutes
    def more(self):
        """Has the same schedule twice."""


def test_schedules_of_a_class():
    """Every schedule of every method is found, in order; several methods may share one."""
    assert schedules_of(Base) == [
        ScheduledMethod("warm every hour", "warm", every.hour),
        ScheduledMethod("report every day at 03:00", "report", every.day.at("3am")),
        ScheduledMethod("report every Sunday at 04:00", "report", every.Sunday.at("4am")),
        ScheduledMethod("dropped every minute", "dropped", every.minute),
        ScheduledMethod("moved every minute", "moved", every.minute),
    ]


def test_overrides_replace_schedules():
    """A method defined again has the schedules of its new definition only."""
    pairs = {(scheduled.method_name, scheduled.schedule) for scheduled in schedules_of(Derived)}
    assert pairs == {
        ("warm", every.hour),
        ("report", every.day.at("3am")),
        ("report", every.Sunday.at("4am")),
        ("moved", every(5).minutes),
        ("more", every.hour),
    }
    names = [scheduled.name for scheduled in schedules_of(Derived)]
    assert len(names) == len(set(names))


def test_schedules_survive_wrapping_and_do_not_leak():
    """A wrapper made with functools.wraps keeps the schedules; adding one to it does not change the wrapped method."""

    @every.hour
    def inner(self):
        """Be wrapped."""

    @every.day
    @functools.wraps(inner)
    def outer(self):
        """Wrap."""

    single = type("One", (), {"method": inner})
    both = type("Both", (), {"method": outer, "other": staticmethod(inner)})
    assert [scheduled.schedule for scheduled in schedules_of(single)] == [every.hour]
    assert [scheduled.schedule for scheduled in schedules_of(both)] == [every.day, every.hour, every.hour]
