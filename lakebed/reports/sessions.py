"""Sessions: the visits of people, which end if a person does nothing for a while: their figures, and a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql, quoted
from lakebed.query.result import Result
from lakebed.reports.arguments import (
    MAX_ROWS,
    OTHER,
    Duration,
    check_cursor,
    check_name,
    check_whole_number,
    duration_us,
    refuse,
)
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Scope, Time

__all__ = ["session_list", "sessions"]

Use = Literal["timeout", "session_id"]
_MAX_TOP = 1_000
_FIGURES = ("sessions", "people", "events_per_session", "avg_seconds", "median_seconds", "bounce_rate", "engaged_rate")
_COLUMNS = ("time", *_FIGURES)


async def sessions(
    context: ReportContext,
    *,
    timeout: Duration = "30m",  # noqa: ASYNC109 - of a visit, not of this call
    use: Use = "timeout",
    grain: Grain | None = "day",
    by: str | None = None,
    top: int = 10,
    engaged_after: Duration = "10s",
    conversion: EventLike | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, sessions, people, events_per_session, avg_seconds, median_seconds, bounce_rate, engaged_rate`.

    A session is a person's events with no gap longer than `timeout` between one and the next. A session belongs to the
    period of its first event, however long it lasts, and counts if its first event lies in `[start, end)`. A session
    that began before `start` is not counted, and not cut in two. Events at or after `end` are ignored.

    A bounce is a session of a single event. A session is engaged if it lasted `engaged_after` or longer, has two page
    or screen views, or a `conversion` (as in GA4). Without `by`, a period without sessions is a row of zeros; without
    any sessions there are no rows.

    Args:
        timeout: longest gap within a session; a gap of exactly that length does not end it.
        use: "timeout", or "session_id" for the sessions of the client; events without a session id are ignored.
        grain: length of a period; None gives one row for the whole range, without `time`.
        by: "entry" or "exit", the name of the first or last event; or a column or property of the first event.
        top: number of values of `by` that have rows of their own, by sessions; the rest is "(other)".
        engaged_after: least length of an engaged session.
        conversion: event that makes a session engaged.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`; other events are ignored.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain or "day")
    check_whole_number("top", top, _MAX_TOP)
    if by is not None and (not by or by.lower() in _COLUMNS):
        refuse("by", by, f"Name a column or property other than {', '.join(_COLUMNS)}")
    conversions = () if conversion is None else (EventFilter.of(conversion, "conversion"),)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=conversions)
    bind = Parameters()
    group, value = grouped(context, by)
    every = sessions_sql(scope, bind, timeout, use, conversions, value)
    engaged = engaged_sql(bind, engaged_after)
    number = "0" if grain is None else calendar.number(grain, "make_timestamptz(start_us)")
    figures = """count(*) AS sessions, count(DISTINCT person_id) AS people,
        sum(events) / count(*) AS events_per_session,
        avg(us_long) / 1e6 AS avg_seconds, median(us_long) / 1e6 AS median_seconds,
        count(*) FILTER (events = 1) / count(*) AS bounce_rate, count(*) FILTER (engaged) / count(*) AS engaged_rate"""
    shown = ", ".join(_FIGURES)
    time = "" if grain is None else f"{calendar.start(grain, 'n')} AS time, "
    each = f"SELECT *, {number} AS n, {engaged} AS engaged FROM ({every})"
    if group is not None:
        sql = f"""
            WITH each AS MATERIALIZED ({each}), best AS (
                SELECT {group} AS best_value FROM each WHERE {group} IS NOT NULL GROUP BY best_value
                ORDER BY count(*) DESC, best_value LIMIT {bind(top)}
            ), named AS (
                SELECT each.*, CASE WHEN {group} IS NULL OR best_value IS NOT NULL THEN {group}
                    ELSE {bind(OTHER)} END AS named FROM each LEFT JOIN best ON {group} = best_value
            )
            SELECT {time}named AS {quoted(str(by))}, {shown} FROM (
                SELECT n, named, {figures} FROM named GROUP BY n, named
            ) ORDER BY ALL
        """
    elif grain is None:
        sql = f"SELECT {shown} FROM (SELECT {figures} FROM ({each})) WHERE sessions > 0"
    else:
        sql = f"""
            WITH counted AS (SELECT n, {figures} FROM ({each}) GROUP BY n),
            every AS (SELECT unnest(generate_series({_span(scope, calendar, grain, bind)})) AS n FROM counted
                HAVING count(*) > 0)
            SELECT {time}coalesce(sessions, 0) AS sessions, coalesce(people, 0) AS people,
                events_per_session, avg_seconds, median_seconds, bounce_rate, engaged_rate
            FROM every LEFT JOIN counted USING (n) ORDER BY n
        """
    return await context.rows(sql, bind, scope, report="sessions")


def grouped(context: ReportContext, by: str | None) -> tuple[str | None, str]:
    """The column of `sessions_sql` that has the values of `by`, and the SQL to pass to `sessions_sql` as `value`."""
    if by is None or by in ("entry", "exit"):
        return by, "NULL"
    return "value", f"CAST({column_sql(by, context.promotions)} AS VARCHAR)"


def engaged_sql(bind: Parameters, engaged_after: Duration) -> str:
    """SQL over `sessions_sql` that is true for an engaged session. Raises QueryRefused for a bad duration."""
    return f"(us_long >= {bind(duration_us('engaged_after', engaged_after))} OR views >= 2 OR conversions > 0)"


def _span(scope: Scope, calendar: Calendar, grain: Grain, bind: Parameters) -> str:
    """SQL for the first and the last period of the range; without bounds, the first and last that have sessions."""
    first = "min(n)" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    last = "max(n)" if scope.end_us is None else calendar.number(grain, bind(from_us(scope.end_us - 1)))
    return f"{first}, {last}"


def sessions_sql(
    scope: Scope, bind: Parameters, timeout: Duration, use: str, conversions: Sequence[EventFilter], value: str = "NULL"
) -> str:
    """A SELECT of the sessions: `person_id, seq, start_us, us_long, events, views, conversions, entry, exit, value`.

    `seq`, `entry` and `value` are those of the first event. `conversions` counts events that meet any filter.

    Raises:
        QueryRefused: `timeout` or `use` is not valid.
    """
    longest = duration_us("timeout", timeout)
    converts = " OR ".join(f"({selection.condition(bind)})" for selection in conversions) or "false"
    columns = f"""person_id, seq, epoch_us(timestamp) AS us, coalesce(event, type) AS name, {value} AS value,
        CAST(type IN ('page', 'screen') AS BIGINT) AS is_view,
        CAST(coalesce({converts}, false) AS BIGINT) AS converts"""
    if use == "session_id":
        read = scope.between(None, scope.end_us)
        begun = "" if scope.start_us is None else f"HAVING start_us >= {bind(scope.start_us)}"
        return f"""
            SELECT arg_min(person_id, moment) AS person_id, arg_min(seq, moment) AS seq, min(us) AS start_us,
                max(us) - min(us) AS us_long, count(*) AS events, sum(is_view) AS views, sum(converts) AS conversions,
                arg_min(name, moment) AS entry, arg_max(name, moment) AS exit, arg_min_null(value, moment) AS value
            FROM (
                SELECT {columns}, session_id, row(us, seq) AS moment FROM events
                WHERE person_id IS NOT NULL AND session_id IS NOT NULL AND {read.condition(bind)}
            ) GROUP BY session_id {begun}
        """
    if use != "timeout":
        refuse("use", use, "Use timeout or session_id")
    since = None if scope.start_us is None else scope.start_us - longest
    within = "true" if scope.start_us is None else f"us >= {bind(scope.start_us)}"
    # An event after a gap begins a session, and ends the one before. Only these rows, and each person's last, are read
    # twice; numbering the sessions of all rows, to group by the number, would sort all of them twice.
    return f"""
        WITH stepped AS (
            SELECT *, row_number() OVER own AS nth, sum(is_view) OVER own AS views,
                sum(converts) OVER own AS conversions, lag(us) OVER own AS before_us,
                lag(name) OVER own AS before_name, lead(us) OVER own IS NULL AS is_last
            FROM (
                SELECT {columns} FROM events WHERE person_id IS NOT NULL AND {scope.condition(bind, since_us=since)}
            ) WINDOW own AS (PARTITION BY person_id ORDER BY us, seq ROWS UNBOUNDED PRECEDING)
        ), edges AS (
            SELECT *, before_us IS NULL OR us - before_us > {bind(longest)} AS begins FROM stepped
        ), ends AS (
            SELECT *, if(begins, before_us, us) AS end_us, if(begins, before_name, name) AS end_name,
                if(begins, nth - 1, nth) AS end_nth, if(begins, views - is_view, views) AS end_views,
                if(begins, conversions - converts, conversions) AS end_conversions
            FROM edges WHERE begins OR is_last
        ), paired AS (
            SELECT *, lead(end_us, 1, us) OVER own AS last_us, lead(end_name, 1, name) OVER own AS last_name,
                lead(end_nth, 1, nth) OVER own AS last_nth, lead(end_views, 1, views) OVER own AS last_views,
                lead(end_conversions, 1, conversions) OVER own AS last_conversions
            FROM ends WINDOW own AS (PARTITION BY person_id ORDER BY nth)
        )
        SELECT person_id, seq, us AS start_us, last_us - us AS us_long, last_nth - nth + 1 AS events,
            last_views - views + is_view AS views, last_conversions - conversions + converts AS conversions,
            name AS entry, last_name AS exit, value
        FROM paired WHERE begins AND {within}
    """


async def session_list(
    context: ReportContext,
    *,
    timeout: Duration = "30m",  # noqa: ASYNC109 - of a visit, not of this call
    use: Use = "timeout",
    by: str | None = None,
    value: str | None = None,
    limit: int = 100,
    before: int | None = None,
    engaged_after: Duration = "10s",
    conversion: EventLike | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `seq, person_id, session_id, start, end, seconds, events, entry, exit, engaged, converted`, newest first.

    The rows are the sessions that `sessions` counts with the same arguments. For the sessions of one of its rows, give
    that row's period as `start` and `end`, and its value as `value`. Of equal starts, the session whose first event
    arrived last comes first.

    `seq`, `session_id` and `entry` are those of the first event, `exit` is the name of the last. A session of a single
    event, which is a bounce, has 0 seconds. `converted` says whether the session has a `conversion`.

    Args:
        timeout: longest gap within a session; a gap of exactly that length does not end it.
        use: "timeout", or "session_id" for the sessions of the client; events without a session id are ignored.
        by: "entry" or "exit", the name of the first or last event; or a column or property of the first event.
        value: value of `by` of the sessions to list; None lists those without a value.
        limit: largest number of rows, up to 10,000.
        before: `seq` of the last row of the page before: only sessions that come after it in the list.
        engaged_after: least length of an engaged session.
        conversion: event that makes a session engaged.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`; other events are ignored.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.
    """
    check_whole_number("limit", limit, MAX_ROWS)
    check_cursor(before)
    if by is not None:
        check_name("by", by, "Name a column or a property, entry or exit")
    if by is None and value is not None:
        raise QueryRefused(f"`value` is {str(value)[:40]!r}, but `by` is missing", hint="Name a column in `by`")
    conversions = () if conversion is None else (EventFilter.of(conversion, "conversion"),)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=conversions)
    bind = Parameters()
    group, of_first = grouped(context, by)
    # sessions_sql has one `value` for a session: here it is the session id and the value of `by`, a text or NULL.
    both = f"{{'id': session_id, 'of_first': CAST({of_first} AS VARCHAR)}}"
    every = sessions_sql(scope, bind, timeout, use, conversions, both)
    conditions = []
    if group is not None:
        column = "value.of_first" if group == "value" else group
        conditions.append(f"{column} IS NOT DISTINCT FROM {bind(value)}")
    if before is not None:
        # As in timeline: a page must not change when a new session comes in between, so it starts after an event.
        last = f"(SELECT epoch_us(timestamp) FROM events WHERE seq = {bind(before)})"
        conditions.append(f"(start_us < {last} OR start_us = {last} AND seq < {bind(before)})")
    sql = f"""
        SELECT seq, person_id, value.id AS session_id, make_timestamptz(start_us) AS start,
            make_timestamptz(start_us + us_long) AS "end", us_long / 1e6 AS seconds, events, entry, exit,
            {engaged_sql(bind, engaged_after)} AS engaged, conversions > 0 AS converted
        FROM ({every}) WHERE {" AND ".join(conditions) or "true"} ORDER BY start_us DESC, seq DESC LIMIT {bind(limit)}
    """
    return await context.rows(sql, bind, scope, report="session_list")
