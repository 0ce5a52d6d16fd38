"""Stickiness: on how many days, or in how many weeks, people came."""

from __future__ import annotations

from typing import Literal

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.daily_people import stickiness_by_day
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time

__all__ = ["stickiness"]

Interval = Literal["day", "week", "month"]
_GRAINS = ("hour", "day", "week", "month")


async def stickiness(
    context: ReportContext,
    event: EventLike | None = None,
    *,
    grain: Grain = "day",
    interval: Interval | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `periods, people, share, at_least`: how many people came in exactly, and in at least, so many periods.

    `share` is of all people who came at all. There is a row for 1, 2 … up to the number of periods that the range
    touches, or, where it has no bounds, up to the most periods of one person. With `interval` each day, week or month
    has such rows of its own, up to the most periods of one person in it, and a column `time` in front has its start.

    Args:
        event: event that counts as coming; by default any event.
        grain: length of the periods that are counted: hour, day, week or month.
        interval: day, week or month, longer than `grain`, within which they are counted; by default the whole range.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    if interval is not None and interval not in _GRAINS[_GRAINS.index(grain) + 1 :]:
        longer = ", ".join(_GRAINS[_GRAINS.index(grain) + 1 :])
        hint = f"Use one of {longer}" if longer else "Count hours, days or weeks"
        raise QueryRefused(f"interval is {str(interval)[:40]!r}, with {grain} as grain", hint=hint)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    if selection == EventFilter():
        result = await stickiness_by_day(context, scope, calendar, grain, interval)
        if result is not None:
            return result
    bind = Parameters()
    number = calendar.number(grain, "timestamp")
    rows = "max(periods)"
    if interval is None and scope.start_us is not None and scope.end_us is not None and scope.start_us < scope.end_us:
        first, last = (calendar.number(grain, bind(from_us(us))) for us in (scope.start_us, scope.end_us - 1))
        rows = f"{last} - {first} + 1"
    # Without an interval, everything is in one interval, number 0.
    within = "0" if interval is None else calendar.number(interval, "timestamp")
    time = "" if interval is None else f"{calendar.start(interval, 'i')} AS time, "
    sql = f"""
        WITH each AS (
            SELECT person_id, {within} AS i, count(DISTINCT {number}) AS periods FROM events
            WHERE person_id IS NOT NULL AND {selection.condition(bind)} AND {scope.condition(bind)} GROUP BY ALL
        ), counted AS (SELECT i, periods, count(*) AS people FROM each GROUP BY i, periods),
        every AS (SELECT i, unnest(generate_series(1, {rows})) AS periods FROM each GROUP BY i)
        SELECT {time}periods, coalesce(people, 0) AS people,
            coalesce(people, 0) / sum(people) OVER (PARTITION BY i) AS share,
            CAST(sum(coalesce(people, 0)) OVER (PARTITION BY i ORDER BY periods DESC) AS BIGINT) AS at_least
        FROM every LEFT JOIN counted USING (i, periods) ORDER BY i, periods
    """
    return await context.rows(sql, bind, scope, report="stickiness")
