"""Lifecycle: in each period, who is new, who came again, who came back, and who stayed away."""

from __future__ import annotations

from lakebed.clock import from_us
from lakebed.query.binder import Binder
from lakebed.query.calendar import Calendar, Grain, WeekStart
from lakebed.query.inquiry import Inquiry
from lakebed.query.presence import lives
from lakebed.query.result import Result
from lakebed.query.scope import Time
from lakebed.query.selection import EventLike, Selection

__all__ = ["lifecycle"]

_GRAINS = ("hour", "day", "week", "month")


async def lifecycle(
    inquiry: Inquiry,
    event: EventLike | None = None,
    *,
    grain: Grain = "week",
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, new, returning, resurrecting, dormant`: the people of each period by what they did before it.

    new: their first event ever lies in it. returning: they were there in the period before, too. resurrecting: they
    were there once, but not in the period before. dormant: they were there in the period before, and are not in this
    one; a positive number. `new + returning + resurrecting` are the people of the period. There is a row for every
    period from that of `start`, or the first event, to that of the last event counted or of now (or `as_of`, or `end`).

    Args:
        event: what makes a person be there; by default any event.
        grain: hour, day, week or month.
        start: periods from its own on, which counts whole; what lies before still decides who is new. None is no bound,
            like `end`.
        end: events before it.
        where: SQL over the columns of `events`.
        cohort: only people of this saved cohort.
        tz: whose days, weeks and months, an IANA name.
        week_start: monday, sunday or saturday.
        as_of: only what was received up to then.
    """
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    chosen = Selection.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    if chosen == Selection() and (found := await lives(inquiry, scope, calendar, grain)) is not None:
        return found
    bind = Binder()
    last = calendar.number(grain, bind(from_us(inquiry.last_us(scope))))
    first = "min(n)" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    sql = f"""
        WITH seen AS (
            SELECT DISTINCT person_id, {calendar.number(grain, "timestamp")} AS n FROM events
            WHERE person_id IS NOT NULL AND {chosen.condition(bind)}
            AND {scope.between(None, scope.end_us).condition(bind)}
        ), neighbours AS (
            SELECT n, lag(n) OVER (PARTITION BY person_id ORDER BY n) AS before,
                lead(n) OVER (PARTITION BY person_id ORDER BY n) AS after FROM seen
        ), states AS (
            SELECT n, count(*) FILTER (before IS NULL) AS fresh, count(*) FILTER (before = n - 1) AS kept,
                count(*) FILTER (before < n - 1) AS back FROM neighbours GROUP BY n
        ), left_out AS (
            SELECT n + 1 AS n, count(*) AS away FROM neighbours WHERE after IS NULL OR after > n + 1 GROUP BY ALL
        ), every AS (
            SELECT unnest(generate_series({first}, greatest(max(n), {last}))) AS n FROM seen HAVING count(*) > 0
        )
        SELECT {calendar.start(grain, "n")} AS time, coalesce(fresh, 0) AS "new", coalesce(kept, 0) AS "returning",
            coalesce(back, 0) AS resurrecting, coalesce(away, 0) AS dormant
        FROM every LEFT JOIN states USING (n) LEFT JOIN left_out USING (n) ORDER BY time
    """
    return await inquiry.rows(sql, bind, scope, report="lifecycle")
