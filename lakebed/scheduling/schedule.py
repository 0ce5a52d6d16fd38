"""When jobs are due: `every.hour`, `every.day.at("3am")`, `every.Sunday.at("4am")`, `every(5).minutes`.

Nothing here waits or runs: a `Schedule` is a value that computes moments. `scheduler.py` runs jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NoReturn, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from lakebed.clock import DAY_S, HOUR_S, MINUTE_S, SECOND_US, from_us, to_us
from lakebed.errors import InvalidSchedule

__all__ = ["Every", "Interval", "Schedule", "ScheduledMethod", "every", "schedules_of", "zone"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ATTRIBUTE = "__lakebed_schedules__"
_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAYS = {(0, 1, 2, 3, 4, 5, 6): "day", (0, 1, 2, 3, 4): "weekday", (5, 6): "weekend"}
_UNITS = {"hour": HOUR_S, "minute": MINUTE_S, "second": 1}
_LONGEST_S = 366 * DAY_S
_DAY = timedelta(days=1)
# More days than a week plus any change of a zone across the date line.
_SEARCH_DAYS = 10

_TIME = re.compile(r"(\d{1,2})(?::(\d\d))? ?(am|pm)|(\d{1,2}):(\d\d)", re.ASCII)
_SHORTCUT = re.compile(r"at(\d{1,2}(?:am|pm)|noon|midnight)", re.ASCII)
_WORDS = {"midnight": 0, "noon": 12 * 60}
_TIMES = 'Times are read like "3am", "9:30am", "17:00", "noon" and "midnight"'
_KNOWN_WORDS = (
    "Use every.minute, every.hour, every.day, every.week, every.weekday, every.weekend, every.Monday to "
    'every.Sunday, every(5).seconds, every(5).minutes, every(2).hours; .at("3am") or .at3am, and .tz("Europe/Berlin")'
)


class _UnknownWord(InvalidSchedule, AttributeError):
    """An unknown word after a dot. It is also an AttributeError, so that `hasattr` and `copy` work as usual."""


class Schedule(msgspec.Struct, frozen=True):
    """Planned moments: an interval, or a time of day on some weekdays. A hashable value with a readable `str`.

    It is also a decorator that attaches itself to a method. A method may have several schedules.

    Intervals count from 1970-01-01 UTC, so restarts do not shift them, and `every.hour` is on the full hour of UTC. A
    time of day is wall time in `timezone`. If a change of the clocks skips that time, the moment is the first one after
    the gap; if the time occurs twice, the moment is the first.

    Attributes:
        interval_s: seconds between moments; 0 for a time of day.
        days: weekdays; 0 is Monday.
        minute: minutes since midnight; None means that no time was set, which counts as midnight.
        timezone: IANA name; None means the object's `schedule_timezone`.
    """

    interval_s: int = 0
    days: tuple[int, ...] = ()
    minute: int | None = None
    timezone: str | None = None

    def __call__(self, function: Function) -> Function:
        """Attach this schedule to `function` and return the same function.

        Raises:
            InvalidSchedule: `function` is not a plain or async function.
        """
        if isinstance(function, type) or not callable(function):
            raise InvalidSchedule(f"{self} cannot run {function!r}", hint="Decorate a plain or async method")
        known: tuple[Schedule, ...] = getattr(function, _ATTRIBUTE, ())
        try:
            setattr(function, _ATTRIBUTE, (self, *(other for other in known if str(other) != str(self))))
        except AttributeError as error:
            hint = "Decorate the function where the class defines it"
            raise InvalidSchedule(f"{self} cannot be attached to {function!r}", hint=hint) from error
        return function

    def at(self, text: str, *, tz: str | None = None) -> Schedule:
        """A schedule of the same days, at a time such as "3am", "9:30am", "17:00", "noon" or "midnight".

        Raises:
            InvalidSchedule: the time or the zone is not valid, or the schedule is an interval or has a time already.
        """
        if self.interval_s:
            raise InvalidSchedule(f"{self} cannot be at {text!r}", hint='Only days have a time: every.day.at("3am")')
        if self.minute is not None:
            raise InvalidSchedule(f"{self} cannot also be at {text!r}", hint="Use one decorator for each time")
        timed = msgspec.structs.replace(self, minute=_minute(text))
        return timed if tz is None else timed.tz(tz)

    def tz(self, name: str) -> Schedule:
        """A schedule of the same wall time, in the IANA zone `name`.

        Raises:
            InvalidSchedule: the zone is unknown, or the schedule is an interval.
        """
        if self.interval_s:
            raise InvalidSchedule(f"{self} cannot have a time zone: intervals count from 1970 UTC", hint=_KNOWN_WORDS)
        zone(name)
        return msgspec.structs.replace(self, timezone=name)

    def __getattr__(self, name: str) -> Schedule:
        """`.at6am`, `.at5pm`, `.atnoon`: like `.at("6am")`, for times that are valid Python names."""
        shortcut = _SHORTCUT.fullmatch(name)
        if shortcut is None:
            _refuse(name, f"{self} has no .{name}")
        return self.at(shortcut[1])

    def __str__(self) -> str:
        if self.interval_s:
            return _interval_words(self.interval_s)
        hour, minute = divmod(self.minute or 0, 60)
        days = _DAYS.get(self.days) or " and ".join(_NAMES[day] for day in self.days)
        return f"every {days} at {hour:02}:{minute:02} {self.timezone or ''}".rstrip()

    def next_after(self, us: int, default_timezone: str = "UTC") -> int:
        """The first planned moment strictly after `us`. `default_timezone` applies if the schedule has no zone."""
        if self.interval_s:
            step = self.interval_s * SECOND_US
            return (us // step + 1) * step
        return next(moment for moment in self._moments(us, default_timezone, 1) if moment > us)

    def latest_due(self, after_us: int, now_us: int, default_timezone: str = "UTC") -> int | None:
        """The last planned moment in (`after_us`, `now_us`], or None. The range's length does not affect the cost."""
        if self.interval_s:
            step = self.interval_s * SECOND_US
            moment = now_us // step * step
        else:
            moment = next(moment for moment in self._moments(now_us, default_timezone, -1) if moment <= now_us)
        return moment if moment > after_us else None

    def _moments(self, us: int, default_timezone: str, direction: int) -> Iterator[int]:
        """The planned moments from two days before `us` on (direction 1), or from two days after `us` back (-1)."""
        where = zone(self.timezone or default_timezone)
        today = from_us(us).astimezone(where).date()
        wall = time(*divmod(self.minute or 0, 60))
        for offset in range(-2, _SEARCH_DAYS):
            day = today + offset * direction * _DAY
            if day.weekday() in self.days:
                yield _moment(day, wall, where)


class Interval:
    """`every(5)`, a number whose unit must follow: `.seconds`, `.minutes`, `.hours`, or a singular of these."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __getattr__(self, name: str) -> Schedule:
        """The schedule whose interval is the number of units called `name`.

        Raises:
            InvalidSchedule: the unit is unknown, or the interval is longer than 366 days.
        """
        unit = _UNITS.get(name.removesuffix("s"))
        if unit is None:
            _refuse(name, f"every({self._number}).{name} is not understood")
        if self._number * unit > _LONGEST_S:
            raise InvalidSchedule(f"every({self._number}).{name} is longer than 366 days", hint=_KNOWN_WORDS)
        return Schedule(interval_s=self._number * unit)


class Every:
    """The words that follow `every`."""

    minute = Schedule(interval_s=MINUTE_S)
    hour = Schedule(interval_s=HOUR_S)
    day = Schedule(days=(0, 1, 2, 3, 4, 5, 6))
    week = Schedule(days=(0,))
    weekday = Schedule(days=(0, 1, 2, 3, 4))
    weekend = Schedule(days=(5, 6))
    Monday = Schedule(days=(0,))
    Tuesday = Schedule(days=(1,))
    Wednesday = Schedule(days=(2,))
    Thursday = Schedule(days=(3,))
    Friday = Schedule(days=(4,))
    Saturday = Schedule(days=(5,))
    Sunday = Schedule(days=(6,))

    def __call__(self, number: int) -> Interval:
        """Called by `every(5).minutes`. Raises InvalidSchedule if `number` is not a whole number above 0."""
        if type(number) is not int or number < 1:
            raise InvalidSchedule(f"every({number!r}) is not understood", hint="Give a whole number: every(5).minutes")
        return Interval(number)

    def __getattr__(self, name: str) -> Schedule:
        """Refuse an unknown word: always raises InvalidSchedule, whose hint lists the known words."""
        _refuse(name, f"every.{name} is not understood")


every = Every()


class ScheduledMethod(msgspec.Struct, frozen=True):
    """A method and one of its schedules. `name` is unique in the class, and does not change at a restart."""

    name: str
    method_name: str
    schedule: Schedule


def schedules_of(cls: type) -> list[ScheduledMethod]:
    """The schedules of the methods of `cls` and its bases, bases first, in the order of definition.

    A method that a subclass defines again replaces the inherited one and its schedules: decorate it again.
    """
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        members.update(vars(base))
    return [
        ScheduledMethod(f"{name} {schedule}", name, schedule)
        for name, member in members.items()
        for schedule in _attached(member)
    ]


def zone(name: str) -> ZoneInfo:
    """The IANA zone `name`. Raises InvalidSchedule if there is no such zone."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError, AttributeError) as error:
        hint = 'Use an IANA name such as "Europe/Berlin" or "UTC"'
        raise InvalidSchedule(f"{name!r} is not a time zone", hint=hint, timezone=name) from error


def _attached(member: Any) -> Sequence[Schedule]:
    if isinstance(member, (staticmethod, classmethod)):
        return vars(member).get(_ATTRIBUTE, ()) or _attached(member.__func__)
    attributes = getattr(member, "__dict__", {})
    return attributes.get(_ATTRIBUTE, ()) if callable(member) and not isinstance(member, type) else ()


def _refuse(name: str, message: str) -> NoReturn:
    if name.startswith("_"):
        raise AttributeError(name)
    raise _UnknownWord(message, hint=_KNOWN_WORDS)


def _minute(text: str) -> int:
    """The minutes since midnight of a time of day such as "3am". Raises InvalidSchedule if it cannot be read."""
    time_text = text.strip().lower() if isinstance(text, str) else ""
    if time_text in _WORDS:
        return _WORDS[time_text]
    if match := _TIME.fullmatch(time_text):
        hour12, minute12, half, hour, minute = match.groups()
        if half and 1 <= int(hour12) <= 12 and int(minute12 or 0) < 60:  # noqa: PLR2004 - a clock's face
            return (int(hour12) % 12 + 12 * (half == "pm")) * 60 + int(minute12 or 0)
        if hour and int(hour) < 24 and int(minute) < 60:  # noqa: PLR2004 - a clock's face
            return int(hour) * 60 + int(minute)
    raise InvalidSchedule(f"{text!r} is not a time of day", hint=_TIMES, text=text)


def _interval_words(seconds: int) -> str:
    name, unit = next((name, unit) for name, unit in _UNITS.items() if seconds % unit == 0)
    return f"every {name}" if seconds == unit else f"every {seconds // unit} {name}s"


def _moment(day: date, wall: time, where: ZoneInfo) -> int:
    """The first moment of the wall time `wall` on `day`; if it is skipped, the first moment after the gap."""
    local = datetime.combine(day, wall, where)
    moment = local.astimezone(UTC)
    if moment.astimezone(where).replace(tzinfo=None) == local.replace(tzinfo=None):
        return to_us(moment)
    # In a gap, fold=1 lies before the change and fold=0 after it.
    return _change(to_us(local.replace(fold=1).astimezone(UTC)), to_us(moment), where)


def _change(before: int, after: int, where: ZoneInfo) -> int:
    """The first second in (before, after] with the offset that the zone has at `after`."""
    offset = from_us(after).astimezone(where).utcoffset()
    low, high = before // SECOND_US, after // SECOND_US
    while high - low > 1:
        middle = (low + high) // 2
        if from_us(middle * SECOND_US).astimezone(where).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high * SECOND_US
