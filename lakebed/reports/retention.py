"""Retention and stickiness: how many people came back in later periods, and in how many periods people came."""

from __future__ import annotations

from typing import Literal, get_args

from lakebed.clock import HOUR_US, YEAR_1_US, from_us
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.arguments import Breakdown, check_choice, check_whole_number
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.lifecycle import stickiness_by_day
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time, with_tables

__all__ = ["retention", "stickiness"]

Mode = Literal["first_time", "recurring", "unbounded"]
_GRAINS = ("hour", "day", "week", "month")
_COLUMNS = ("cohort", "period", "people", "rate")
_MAX_PERIODS = 1_000
_LONGEST_US = {"hour": HOUR_US, "day": 25 * HOUR_US, "week": 169 * HOUR_US, "month": 745 * HOUR_US}


async def retention(
    context: ReportContext,
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

    A cohort is named by the start of its period. Period 0 is the cohort itself, so its rate is 1. There is a row for
    every cohort that has people and every period from 0 to `periods` that began before now (or `as_of`, or `end`); the
    last of these periods may not be over. With `by` each value has such rows, and the last column has the value; the
    values with most people come first. A person is in a cohort with one value, so the values add up to the whole.

    Args:
        start_event: event that puts a person into a cohort; by default any event.
        return_event: event that counts as coming back; by default any event.
        grain: length of a period: hour, day, week or month.
        periods: number of periods after period 0, up to 1,000.
        mode: rule for cohorts. "first_time": a person is in one cohort, that of their first start event ever.
            "recurring": a person is in a cohort for every period with a start event. "unbounded": as "first_time", and
            a person who returns in a later period counts for a period, too.
        by: column or property to split by: its value in the start event that put the person into the cohort, which is
            the first ever, or in mode "recurring" the first of the period.
        top: number of values of `by` that have rows of their own, by people in their cohorts; the rest is "(other)".
        start: moment in the period of the first cohort; all of that period counts. None is no bound.
        end: end of the events that are read, excluded; None is no bound.
        where: SQL condition over the columns of `events`, for both kinds of events.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    check_choice("mode", mode, get_args(Mode))
    check_whole_number("periods", periods, _MAX_PERIODS)
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    began, returned = EventFilter.of(start_event, "start_event"), EventFilter.of(return_event, "return_event")
    scope = await context.scope(
        start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(began, returned)
    )
    breakdown = Breakdown.of(by, top, context.promotions, _COLUMNS)
    bind = Parameters()
    # A first start event may lie before `start`; its person is in no later cohort. All of the period of `start` counts.
    since = None if mode != "recurring" or scope.start_us is None else scope.start_us - _LONGEST_US[grain]
    read = scope.between(None if since is None else max(since, YEAR_1_US), scope.end_us)
    begins, returns = began.condition(bind), returned.condition(bind)
    last = calendar.number(grain, bind(from_us(context.last_us(scope))))
    is_shown = "true" if scope.start_us is None else f"c >= {calendar.number(grain, bind(from_us(scope.start_us)))}"
    value = "" if breakdown is None else f", {breakdown.first(begins)} AS value"
    tables = {
        "seen": f"""
            SELECT person_id, {calendar.number(grain, "timestamp")} AS n,
                bool_or({begins}) AS started, bool_or({returns}) AS came{value}
            FROM events WHERE person_id IS NOT NULL AND ({begins} OR {returns}) AND {read.condition(bind)}
            GROUP BY ALL""",
        **_COUNTED[mode](is_shown, bind(periods), is_split=breakdown is not None),
    }
    counted, cohort_key = "counted", "c"
    if breakdown is not None:
        tables |= breakdown.ranked("(FROM counted WHERE period = 0)", "sum(people)", bind)
        # No person is in a cohort twice, so the people of several values can be added up.
        tables["counted_by_name"] = """
            SELECT nth, c, period, sum(people) AS people
            FROM counted JOIN ranked ON counted.value IS NOT DISTINCT FROM ranked.value GROUP BY nth, c, period"""
        counted, cohort_key = "counted_by_name", "nth, c"
    tables["sizes"] = f"SELECT {cohort_key}, sum(people) AS size FROM {counted} WHERE period = 0 GROUP BY {cohort_key}"
    until = f"least({bind(periods)}, {last} - c)"
    tables["cells"] = f"SELECT {cohort_key}, size, unnest(generate_series(0, {until})) AS period FROM sizes"
    columns = f"""{calendar.start(grain, "c")} AS cohort, CAST(period AS BIGINT) AS period,
        CAST(coalesce(people, 0) AS BIGINT) AS people, coalesce(people, 0) / size AS rate"""
    rows = f"cells LEFT JOIN {counted} USING ({cohort_key}, period)"
    if breakdown is None:
        select = f"SELECT {columns} FROM {rows} ORDER BY cohort, period"
    else:  # `cells.nth` is qualified, as the column of `by` may be called nth
        rows += " JOIN named USING (nth)"
        select = f"SELECT {columns}, {breakdown.column} FROM {rows} ORDER BY cells.nth, cohort, period"
    return await context.rows(with_tables(tables, select), bind, scope, report="retention")


# The modes: tables over `seen` (`person_id, n, started, came`, and `value` where the report is split). The last table
# is `counted`: `c, period, people`, and `value`. Each person's periods are a list, which costs a third of joining
# `seen` to itself.


def _first_time(is_shown: str, periods: str, *, is_split: bool) -> dict[str, str]:
    """SQL of tables: each person is in one cohort; every period with a return counts."""
    key = "value, c" if is_split else "c"
    return {
        "members": _members("list(n) FILTER (came) AS ns", is_shown, is_split=is_split),
        "returns": f"SELECT {key}, unnest(ns) - c AS period FROM members",
        "counted": f"""
            SELECT {key}, 0 AS period, count(*) AS people FROM members GROUP BY {key} UNION ALL
            SELECT {key}, period, count(*) AS people FROM returns
            WHERE period BETWEEN 1 AND {periods} GROUP BY {key}, period""",
    }


def _unbounded(is_shown: str, periods: str, *, is_split: bool) -> dict[str, str]:
    """SQL of tables: each person is in one cohort; every period up to the last return counts."""
    key = "value, c" if is_split else "c"
    until = f"greatest(0, least(coalesce(latest, c) - c, {periods}))"
    return {
        "members": _members("max(n) FILTER (came) AS latest", is_shown, is_split=is_split),
        "counted": f"""
            SELECT {key}, period, count(*) AS people
            FROM (SELECT {key}, unnest(generate_series(0, {until})) AS period FROM members)
            GROUP BY {key}, period""",
    }


def _recurring(is_shown: str, periods: str, *, is_split: bool) -> dict[str, str]:
    """SQL of tables: a person is in a cohort for each period with a start; every period with a return counts."""
    key = "value, c" if is_split else "c"
    values = "list(value) FILTER (started) AS vs, " if is_split else ""
    value = "unnest(vs) AS value, " if is_split else ""
    return {
        "lists": f"""
            SELECT list(n) FILTER (started) AS cs, {values}list(n) FILTER (came) AS ns
            FROM seen GROUP BY person_id""",
        "members": f"SELECT unnest(cs) AS c, {value}ns FROM lists",
        "counted": f"""
            SELECT {key}, 0 AS period, count(*) AS people FROM members WHERE {is_shown} GROUP BY {key} UNION ALL
            SELECT {key}, period, count(*) AS people
            FROM (SELECT {key}, unnest(ns) - c AS period FROM members WHERE {is_shown})
            WHERE period BETWEEN 1 AND {periods} GROUP BY {key}, period""",
    }


def _members(returns: str, is_shown: str, *, is_split: bool) -> str:
    """SQL for a row for each person: the cohort `c` of the first start, its `value`, and the column `returns`."""
    value = "arg_min_null(value, n) FILTER (started) AS value, " if is_split else ""
    return f"""
        SELECT min(n) FILTER (started) AS c, {value}{returns} FROM seen GROUP BY person_id
        HAVING c IS NOT NULL AND {is_shown}"""


_COUNTED = {"first_time": _first_time, "unbounded": _unbounded, "recurring": _recurring}


Interval = Literal["day", "week", "month"]


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

    `share` is a fraction of the people who came in any period. There is a row for 1, 2 … up to the number of periods
    that the range touches, or without bounds up to the most periods of one person. With `interval` each day, week or
    month has such rows, up to the most periods of a person in it, and its start is the column `time`.

    Args:
        event: event that counts as coming; by default any event.
        grain: length of the periods that are counted: hour, day, week or month.
        interval: day, week or month, longer than `grain`, in which periods are counted; by default the whole range.
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
        hint = f"Use one of {longer}" if longer else "Leave interval out, or use a shorter grain"
        raise QueryRefused(f"interval {str(interval)[:40]!r} is not valid for grain {grain}", hint=hint)
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
