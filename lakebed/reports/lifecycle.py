"""Lifecycle: in each period, who is new, who came again, who came back, and who stayed away."""

from __future__ import annotations

from lakebed.clock import from_us
from lakebed.query.result import Result
from lakebed.reports.breakdown import Breakdown
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.daily_people import lives
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["lifecycle"]

_GRAINS = ("hour", "day", "week", "month")
_OWN = ("time", "new", "returning", "resurrecting", "dormant")


async def lifecycle(
    inquiry: ReportContext,
    event: EventLike | None = None,
    *,
    grain: Grain = "week",
    by: str | None = None,
    top: int = 10,
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
    With `by` each value has a row for every period, and its column comes behind: the values with most people first. A
    person is there with one value in each period, so the values add up to the whole.

    Args:
        event: what makes a person be there; by default any event.
        grain: hour, day, week or month.
        by: a column or a property to split by, with its value at the person's first event of the period; for the
            dormant, of the period before.
        top: how many values of `by` have rows of their own, by people in the periods shown; the rest is "(other)".
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
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    split = Breakdown.of(by, top, inquiry.promotions, _OWN)
    if (
        split is None
        and chosen == EventFilter()
        and (found := await lives(inquiry, scope, calendar, grain)) is not None
    ):
        return found
    bind = Parameters()
    last = calendar.number(grain, bind(from_us(inquiry.last_us(scope))))
    first = "min(n)" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    key, value, column, named = "", "", "", ""
    source, rows, at, order = "changes", "every", "n", "shown.n"
    if split is not None:
        key, value, column = "value, ", f", {split.first(chosen.condition(bind))} AS value", f", {split.column}"
        named = f""", {split.ranked("(FROM changes SEMI JOIN every USING (n))", "sum(fresh + kept + back)", bind)}"""
        source = "(FROM changes JOIN ranked ON changes.value IS NOT DISTINCT FROM ranked.value)"
        rows, at = "(FROM named CROSS JOIN every)", "nth, n"
        order = "shown.nth, shown.n"  # qualified, as the column may be called like it
    sql = f"""
        WITH seen AS (
            SELECT person_id, {calendar.number(grain, "timestamp")} AS n{value} FROM events
            WHERE person_id IS NOT NULL AND {chosen.condition(bind)}
            AND {scope.between(None, scope.end_us).condition(bind)} GROUP BY ALL
        ), neighbours AS (
            SELECT {key}n, lag(n) OVER own AS before, lead(n) OVER own AS after FROM seen
            WINDOW own AS (PARTITION BY person_id ORDER BY n)
        ), changes AS (
            SELECT {key}n, count(*) FILTER (before IS NULL) AS fresh, count(*) FILTER (before = n - 1) AS kept,
                count(*) FILTER (before < n - 1) AS back, 0 AS away FROM neighbours GROUP BY {key}n UNION ALL
            SELECT {key}n + 1, 0, 0, 0, count(*) FROM neighbours WHERE after IS NULL OR after > n + 1 GROUP BY {key}n
        ), every AS (
            SELECT unnest(generate_series({first}, greatest(max(n), {last}))) AS n FROM seen HAVING count(*) > 0
        ){named}, states AS (
            SELECT {at}, sum(fresh) AS fresh, sum(kept) AS kept, sum(back) AS back, sum(away) AS away
            FROM {source} GROUP BY {at}
        )
        SELECT {calendar.start(grain, "n")} AS time, CAST(coalesce(fresh, 0) AS BIGINT) AS "new",
            CAST(coalesce(kept, 0) AS BIGINT) AS "returning", CAST(coalesce(back, 0) AS BIGINT) AS resurrecting,
            CAST(coalesce(away, 0) AS BIGINT) AS dormant{column}
        FROM {rows} AS shown LEFT JOIN states USING ({at}) ORDER BY {order}
    """
    return await inquiry.rows(sql, bind, scope, report="lifecycle")
