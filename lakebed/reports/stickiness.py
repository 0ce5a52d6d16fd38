"""Stickiness: on how many days, or in how many weeks, people came."""

from __future__ import annotations

from typing import Literal

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.daily_people import visits
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["stickiness"]

Interval = Literal["day", "week", "month"]
_GRAINS = ("hour", "day", "week", "month")


async def stickiness(
    inquiry: ReportContext,
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

    `share` is of all people who came at all. There is a row for 1, 2 … up to the periods that the range touches, or,
    where it has no bounds, up to the most that anybody has. With `interval` the same of each day, week or month by
    itself, whose start is a column `time` before them: as many rows as the most that anybody has in it.

    Args:
        event: what counts as coming; by default any event.
        grain: hour, day, week or month: what is counted.
        interval: day, week or month, longer than `grain`: within what is counted; by default the whole range.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`.
        cohort: only people of this saved cohort.
        tz: whose days, weeks and months, an IANA name.
        week_start: monday, sunday or saturday.
        as_of: only what was received up to then.
    """
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    if interval is not None and interval not in _GRAINS[_GRAINS.index(grain) + 1 :]:
        longer = ", ".join(_GRAINS[_GRAINS.index(grain) + 1 :])
        hint = f"Use one of {longer}" if longer else "Count hours, days or weeks"
        raise QueryRefused(f"interval is {str(interval)[:40]!r}, with {grain} as grain", hint=hint)
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    if chosen == EventFilter() and (found := await visits(inquiry, scope, calendar, grain, interval)) is not None:
        return found
    bind = Parameters()
    number = calendar.number(grain, "timestamp")
    most = "max(periods)"
    if interval is None and scope.start_us is not None and scope.end_us is not None and scope.start_us < scope.end_us:
        first, last = (calendar.number(grain, bind(from_us(us))) for us in (scope.start_us, scope.end_us - 1))
        most = f"{last} - {first} + 1"
    # Without an interval everything is one, the number 0.
    within = "0" if interval is None else calendar.number(interval, "timestamp")
    time = "" if interval is None else f"{calendar.start(interval, 'i')} AS time, "
    sql = f"""
        WITH each AS (
            SELECT person_id, {within} AS i, count(DISTINCT {number}) AS periods FROM events
            WHERE person_id IS NOT NULL AND {chosen.condition(bind)} AND {scope.condition(bind)} GROUP BY ALL
        ), counted AS (SELECT i, periods, count(*) AS people FROM each GROUP BY i, periods),
        every AS (SELECT i, unnest(generate_series(1, {most})) AS periods FROM each GROUP BY i)
        SELECT {time}periods, coalesce(people, 0) AS people,
            coalesce(people, 0) / sum(people) OVER (PARTITION BY i) AS share,
            CAST(sum(coalesce(people, 0)) OVER (PARTITION BY i ORDER BY periods DESC) AS BIGINT) AS at_least
        FROM every LEFT JOIN counted USING (i, periods) ORDER BY i, periods
    """
    return await inquiry.rows(sql, bind, scope, report="stickiness")
