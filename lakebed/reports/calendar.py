"""Calendar: the periods of a time zone. Gives SQL for the number of a timestamp's period, and for a period's start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta, tzinfo
from typing import Literal, Self, get_args
from zoneinfo import ZoneInfo

import msgspec

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, WEEK_US, from_us
from lakebed.errors import QueryRefused
from lakebed.reports.arguments import check_choice

__all__ = ["Calendar", "Grain", "WeekStart"]

Grain = Literal["minute", "hour", "day", "week", "month"]
WeekStart = Literal["monday", "sunday", "saturday"]

_EPOCH = date(1970, 1, 1).toordinal()
_HOUR = timedelta(hours=1)
_EARLIEST_US = -50 * 366 * DAY_US  # earlier, offsets of zones were not whole minutes
_LONGEST_US = 100 * 366 * DAY_US
_FIXED_US = {"minute": MINUTE_US, "hour": HOUR_US, "day": DAY_US, "week": WEEK_US}
_SHIFT_DAYS = {"monday": 3, "sunday": 4, "saturday": 5}  # how many days of its week were over on 1970-01-01


class Calendar(msgspec.Struct, frozen=True):
    """Days, weeks and months of a time zone.

    Minutes and hours are those of UTC in every zone: if a clock is put back, two hours that it shows alike stay apart.
    A day is the time in which the zone's wall clock shows one date, however long that is. Weeks and months are made of
    days. DuckDB's copy of the time zone database defines the wall clock.

    Attributes:
        tz: IANA name of the time zone.
        week_start: the first day of a week.
    """

    tz: str = "UTC"
    week_start: WeekStart = "monday"

    @classmethod
    def of(cls, tz: str, week_start: str, grain: str = "day", grains: Sequence[str] = get_args(Grain)) -> Self:
        """The calendar for a report's arguments. Checks that `grain` is one of `grains`.

        Raises:
            QueryRefused: there is no such time zone, `week_start` or `grain`.
        """
        check_choice("grain", grain, grains)
        check_choice("week_start", week_start, get_args(WeekStart))
        calendar = cls(tz, week_start)  # type: ignore[arg-type]  # checked a line above
        _ = calendar.zone
        return calendar

    @property
    def zone(self) -> tzinfo:
        """The time zone. Raises QueryRefused if no time zone has the name `tz`."""
        try:
            return ZoneInfo(self.tz)
        except (KeyError, ValueError, TypeError, OSError) as error:
            hint = "Use an IANA name such as Europe/Berlin"
            raise QueryRefused(f"`tz` is {str(self.tz)[:40]!r}, which is not a time zone", hint=hint) from error

    def has_whole_hours(self, first_us: int, last_us: int) -> bool:
        """Whether every day, week and month from `first_us` to `last_us` begins at a full hour of UTC."""
        if self.tz == "UTC":
            return True
        if not _EARLIEST_US <= first_us <= last_us <= first_us + _LONGEST_US:
            return False
        zone = self.zone
        days = range(first_us - DAY_US, last_us + 2 * DAY_US, DAY_US)
        return all(not from_us(us).astimezone(zone).utcoffset() % _HOUR for us in days)  # type: ignore[operator]  # aware

    def number(self, grain: Grain, column: str) -> str:
        """SQL for the number (BIGINT) of the period of the TIMESTAMPTZ `column`. The next period has one more."""
        if grain in ("minute", "hour"):
            return _floored(f"epoch_us({column})", _FIXED_US[grain])
        local = self._local_us(column)
        if grain == "month":
            return f"(year(make_timestamp({local})) * 12 + month(make_timestamp({local})) - 1)"
        if grain == "week":
            local = f"({local} + {_SHIFT_DAYS[self.week_start] * DAY_US})"
        return _floored(local, _FIXED_US[grain])

    def start(self, grain: Grain, number: str) -> str:
        """SQL for the start of the period `number`: a TIMESTAMPTZ for minutes and hours, else a DATE of the zone."""
        if grain in ("minute", "hour"):
            return f"make_timestamptz({number} * {_FIXED_US[grain]})"
        if grain == "month":
            return f"make_date({number} // 12, CAST({number} % 12 + 1 AS BIGINT), 1)"
        if grain == "week":
            return f"(DATE '1970-01-01' + CAST({number} * 7 - {_SHIFT_DAYS[self.week_start]} AS INTEGER))"
        return f"(DATE '1970-01-01' + CAST({number} AS INTEGER))"

    def number_of(self, grain: Grain, day: int) -> int:
        """The number of the period that contains `day`, in days since 1970; `grain` is day, week or month."""
        if grain == "month":
            first = date.fromordinal(day + _EPOCH)
            return first.year * 12 + first.month - 1
        return (day + _SHIFT_DAYS[self.week_start]) // 7 if grain == "week" else day

    def day_of(self, grain: Grain, number: int) -> int:
        """The day, in days since 1970, on which the period `number` starts; `grain` is day, week or month."""
        if grain == "month":
            return date(number // 12, number % 12 + 1, 1).toordinal() - _EPOCH
        return number * 7 - _SHIFT_DAYS[self.week_start] if grain == "week" else number

    def instant(self, grain: Grain, number: str) -> str:
        """SQL for the TIMESTAMPTZ at which the period `number` starts: the first moment at which its date holds."""
        start = self.start(grain, number)
        if grain in ("minute", "hour"):
            return start
        midnight = f"timezone({self._zone}, CAST({start} AS TIMESTAMP))"
        # If a clock is put back to or over midnight, it shows midnight twice, and `midnight` is the second time.
        earlier = [f"{midnight} - INTERVAL {hours} HOUR" for hours in (2, 1)]
        cases = " ".join(f"WHEN timezone({self._zone}, {moment}) >= {start} THEN {moment}" for moment in earlier)
        return midnight if self.tz == "UTC" else f"(CASE {cases} ELSE {midnight} END)"

    def _local_us(self, column: str) -> str:
        # `timezone` calls ICU for each row, which takes 0.2 us instead of 0.01: it is left out for UTC.
        return f"epoch_us({column})" if self.tz == "UTC" else f"epoch_us(timezone({self._zone}, {column}))"

    @property
    def _zone(self) -> str:
        name = self.tz.replace("'", "''")
        return f"'{name}'"


def _floored(value: str, step: int) -> str:
    """SQL for `value // step`, rounded down: DuckDB's `//` rounds to zero, which is wrong for times before 1970."""
    return f"(({value} - ({value} % {step} + {step}) % {step}) // {step})"
