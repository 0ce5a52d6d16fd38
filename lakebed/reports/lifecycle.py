"""Lifecycle: how many people are new in each period, came again, came back, or stayed away."""

from __future__ import annotations

from lakebed.clock import from_us
from lakebed.query.result import Result
from lakebed.reports.arguments import Breakdown
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.daily_people import lifecycle_by_day
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time, with_tables

__all__ = ["lifecycle"]

_GRAINS = ("hour", "day", "week", "month")
_COLUMNS = ("time", "new", "returning", "resurrecting", "dormant")


async def lifecycle(
    context: ReportContext,
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
        event: event that makes a person be there; by default any event.
        grain: length of a period: hour, day, week or month.
        by: column or property to split by, with its value at the person's first event of the period; for the
            dormant, of the period before.
        top: number of values of `by` that have rows of their own, by people in the periods shown; the rest is
            "(other)".
        start: moment in the first period shown, which counts whole; earlier events still decide who is new. None is no
            bound.
        end: end of the events that are read, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    breakdown = Breakdown.of(by, top, context.promotions, _COLUMNS)
    if breakdown is None and selection == EventFilter():
        result = await lifecycle_by_day(context, scope, calendar, grain)
        if result is not None:
            return result
    bind = Parameters()
    number = calendar.number(grain, "timestamp")
    last = calendar.number(grain, bind(from_us(context.last_us(scope))))
    first = "min(n)" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    columns, key, next_key = ["person_id", f"{number} AS n"], "n", "n + 1"
    if breakdown is not None:
        columns.append(f"{breakdown.first(selection.condition(bind))} AS value")
        key, next_key = "value, n", "value, n + 1"
    tables = {
        "seen": f"""
            SELECT {", ".join(columns)} FROM events
            WHERE person_id IS NOT NULL AND {selection.condition(bind)}
            AND {scope.between(None, scope.end_us).condition(bind)} GROUP BY ALL""",
        "neighbours": f"""
            SELECT {key}, lag(n) OVER own AS before, lead(n) OVER own AS after FROM seen
            WINDOW own AS (PARTITION BY person_id ORDER BY n)""",
        "changes": f"""
            SELECT {key}, count(*) FILTER (before IS NULL) AS fresh, count(*) FILTER (before = n - 1) AS kept,
                count(*) FILTER (before < n - 1) AS back, 0 AS away FROM neighbours GROUP BY {key} UNION ALL
            SELECT {next_key}, 0, 0, 0, count(*) FROM neighbours WHERE after IS NULL OR after > n + 1 GROUP BY {key}""",
        "every": f"""
            SELECT unnest(generate_series({first}, greatest(max(n), {last}))) AS n FROM seen HAVING count(*) > 0""",
    }
    changes, rows, row_key, column = "changes", "every", "n", ""
    if breakdown is not None:
        tables |= breakdown.ranked("(FROM changes SEMI JOIN every USING (n))", "sum(fresh + kept + back)", bind)
        tables["ranked_changes"] = "FROM changes JOIN ranked ON changes.value IS NOT DISTINCT FROM ranked.value"
        tables["named_periods"] = "FROM named CROSS JOIN every"
        changes, rows, row_key, column = "ranked_changes", "named_periods", "nth, n", f", {breakdown.column}"
    tables["states"] = f"""
        SELECT {row_key}, sum(fresh) AS fresh, sum(kept) AS kept, sum(back) AS back, sum(away) AS away
        FROM {changes} GROUP BY {row_key}"""
    order = "shown.n" if breakdown is None else "shown.nth, shown.n"  # qualified: the column of `by` may be called so
    select = f"""
        SELECT {calendar.start(grain, "n")} AS time, CAST(coalesce(fresh, 0) AS BIGINT) AS "new",
            CAST(coalesce(kept, 0) AS BIGINT) AS "returning", CAST(coalesce(back, 0) AS BIGINT) AS resurrecting,
            CAST(coalesce(away, 0) AS BIGINT) AS dormant{column}
        FROM {rows} AS shown LEFT JOIN states USING ({row_key}) ORDER BY {order}"""
    return await context.rows(with_tables(tables, select), bind, scope, report="lifecycle")
