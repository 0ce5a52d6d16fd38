"""Session list: the sessions behind a number of `sessions`, one by one, newest first."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.arguments import MAX_ROWS, Duration, check_cursor, check_name, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time
from lakebed.reports.sessions import Use, engaged_sql, grouped, sessions_sql

__all__ = ["session_list"]


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

    They are the sessions that `sessions` counts with the same arguments. With the period of one of its rows as `start`
    and `end`, and its value as `value`, they are the sessions of that row. Of equal starts, the session whose first
    event arrived last comes first.

    `seq`, `session_id` and `entry` are those of the first event, `exit` is the name of the last. A session of a single
    event, which is a bounce, has 0 seconds. `converted` says whether a `conversion` is in it.

    Args:
        timeout: longest gap within a session; a gap of exactly that length does not end it.
        use: "timeout", or "session_id" for the sessions of the client; events without a session id are ignored.
        by: "entry" or "exit", the name of the first or last event; or a column or property of the first event.
        value: value of `by` of the sessions to list; None lists those without a value.
        limit: largest number of rows, up to 10,000.
        before: `seq` of the last row of the page before: only sessions that come after it in the list.
        engaged_after: length of a session from which on it is engaged.
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
        raise QueryRefused(f"value is {str(value)[:40]!r} without by", hint="Name the column or property in by")
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
