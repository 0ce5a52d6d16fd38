"""Retention: of those who came in one period, how many came again in the periods after it."""

from __future__ import annotations

from typing import Literal

from lakebed.clock import HOUR_US, YEAR_1_US, from_us
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.breakdown import Breakdown
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["retention"]

Mode = Literal["first_time", "recurring", "unbounded"]
_MODES = ("first_time", "recurring", "unbounded")
_GRAINS = ("hour", "day", "week", "month")
_OWN = ("cohort", "period", "people", "rate")
_MOST_PERIODS = 1_000
_LONGEST_US = {"hour": HOUR_US, "day": 25 * HOUR_US, "week": 169 * HOUR_US, "month": 745 * HOUR_US}


async def retention(
    inquiry: ReportContext,
    start_event: EventLike | None = None,
    return_event: EventLike | None = None,
    *,
    grain: Grain = "week",
    periods: int = 12,
    mode: Mode = "first_time",
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
    """Rows `cohort, period, people, rate`: of the people of each cohort, how many came back `period` periods later.

    A cohort is named by the start of its period. Period 0 is the cohort itself, so its rate is 1. A row is there for
    every cohort that has people and every period from 0 to `periods` that began before now (or `as_of`, or `end`); the
    last of them may not be over. With `by` each value has such rows, and its column comes behind: the values with most
    people first. A person is in a cohort with one value, so the values add up to the whole.

    Args:
        start_event: what makes somebody part of a cohort; by default any event.
        return_event: what counts as coming back; by default any event.
        grain: hour, day, week or month.
        periods: how many after period 0.
        mode: "first_time": a person is in one cohort, that of their first start event ever. "recurring": in that of
            every period with a start event. "unbounded": like "first_time", and a return in a later period counts too.
        by: a column or a property to split by, with its value at the start event that put the person into the cohort:
            the first ever, or in "recurring" the first of the period.
        top: how many values of `by` have rows of their own, by people in their cohorts; the rest is "(other)".
        start: cohorts from the one of its period on, which counts whole; None is no bound, like `end`.
        end: events before it.
        where: SQL over the columns of `events`, for both kinds of events.
        cohort: only people of this saved cohort.
        tz: whose days, weeks and months, an IANA name.
        week_start: monday, sunday or saturday.
        as_of: only what was received up to then.
    """
    if mode not in _MODES:
        raise QueryRefused(f"mode is {str(mode)[:40]!r}", hint=f"Use one of {', '.join(_MODES)}")
    check_limit("periods", periods, _MOST_PERIODS)
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    began, returned = EventFilter.of(start_event, "start_event"), EventFilter.of(return_event, "return_event")
    scope = await inquiry.scope(
        start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(began, returned)
    )
    split = Breakdown.of(by, top, inquiry.promotions, _OWN)
    bind = Parameters()
    # The first time may lie before `start`: who came then is in no later cohort. The period of `start` counts whole.
    since = None if mode != "recurring" or scope.start_us is None else scope.start_us - _LONGEST_US[grain]
    read = scope.between(None if since is None else max(since, YEAR_1_US), scope.end_us)
    begins, returns = began.condition(bind), returned.condition(bind)
    last = calendar.number(grain, bind(from_us(inquiry.last_us(scope))))
    first = "true" if scope.start_us is None else f"c >= {calendar.number(grain, bind(from_us(scope.start_us)))}"
    value = "" if split is None else f", {split.first(begins)} AS value"
    counted = _COUNTED[mode].format(periods=bind(periods), first=first, **(_WHOLE if split is None else _BY_VALUE))
    source, key, column, named, order = "counted", "", "", "", ""
    if split is not None:
        # Nobody is twice in a cohort, so the people of several values are their sum.
        counted += f""", {split.ranked("(FROM counted WHERE period = 0)", "sum(people)", bind)}, shown AS (
            SELECT nth, c, period, sum(people) AS people
            FROM counted JOIN ranked ON counted.value IS NOT DISTINCT FROM ranked.value GROUP BY nth, c, period
        )"""
        source, key, column, named = "shown", "nth, ", f", {split.column}", "JOIN named USING (nth)"
        order = "cells.nth, "  # qualified, as the column may be called like it
    sql = f"""
        WITH seen AS (
            SELECT person_id, {calendar.number(grain, "timestamp")} AS n,
                bool_or({begins}) AS started, bool_or({returns}) AS came{value}
            FROM events WHERE person_id IS NOT NULL AND ({begins} OR {returns}) AND {read.condition(bind)}
            GROUP BY ALL
        ), {counted}, sizes AS (
            SELECT {key}c, sum(people) AS size FROM {source} WHERE period = 0 GROUP BY {key}c
        ), cells AS (
            SELECT {key}c, size, unnest(generate_series(0, least({bind(periods)}, {last} - c))) AS period FROM sizes
        )
        SELECT {calendar.start(grain, "c")} AS cohort, CAST(period AS BIGINT) AS period,
            CAST(coalesce(people, 0) AS BIGINT) AS people, coalesce(people, 0) / size AS rate{column}
        FROM cells LEFT JOIN {source} USING ({key}c, period) {named} ORDER BY {order}cohort, period
    """
    return await inquiry.rows(sql, bind, scope, report="retention")


# People by cohort and period. Each person's periods are a list, which costs a third of joining `seen` to itself.
_ONE_COHORT = """members AS (
    SELECT min(n) FILTER (started) AS c, {{earliest}}{taken} FROM seen GROUP BY person_id
    HAVING c IS NOT NULL AND {{first}}
)"""
_COUNTED = {
    "first_time": _ONE_COHORT.format(taken="list(n) FILTER (came) AS ns")
    + """, pairs AS (SELECT {key}c, unnest(ns) - c AS period FROM members), counted AS (
        SELECT {key}c, 0 AS period, count(*) AS people FROM members GROUP BY {key}c UNION ALL
        SELECT {key}c, period, count(*) AS people FROM pairs
        WHERE period BETWEEN 1 AND {periods} GROUP BY {key}c, period
    )""",
    "unbounded": _ONE_COHORT.format(taken="max(n) FILTER (came) AS latest")
    + """, counted AS (
        SELECT {key}c, period, count(*) AS people FROM (
            SELECT {key}c, unnest(generate_series(0, greatest(0, least(coalesce(latest, c) - c, {periods})))) AS period
            FROM members
        ) GROUP BY {key}c, period
    )""",
    "recurring": """lists AS (
        SELECT list(n) FILTER (started) AS cs, {values}list(n) FILTER (came) AS ns FROM seen GROUP BY person_id
    ), cohorts AS (SELECT unnest(cs) AS c, {each}ns FROM lists), counted AS (
        SELECT {key}c, 0 AS period, count(*) AS people FROM cohorts WHERE {first} GROUP BY {key}c UNION ALL
        SELECT {key}c, period, count(*) AS people
        FROM (SELECT {key}c, unnest(ns) - c AS period FROM cohorts WHERE {first})
        WHERE period BETWEEN 1 AND {periods} GROUP BY {key}c, period
    )""",
}
_WHOLE = {"key": "", "earliest": "", "values": "", "each": ""}
_BY_VALUE = {
    "key": "value, ",
    "earliest": "arg_min_null(value, n) FILTER (started) AS value, ",
    "values": "list(value) FILTER (started) AS vs, ",
    "each": "unnest(vs) AS value, ",
}
