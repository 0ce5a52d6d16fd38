"""The sessions behind a number of `sessions`, one by one, newest first."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.duration import Duration
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.limits import check_cursor, check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time
from lakebed.reports.sessions import Use, engaged_sql, grouped, sessions_sql

__all__ = ["session_list"]

_MOST = 10_000


async def session_list(
    inquiry: ReportContext,
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

    They are the sessions that `sessions` counts with the same arguments: those of a row of it with its period as
    `start` and `end`, and its value as `value`. Of equal starts, the one whose first event arrived last comes first.

    `seq`, `session_id` and `entry` are those of the first event, `exit` is the name of the last. A session of a single
    event, which is a bounce, has 0 seconds. `converted` says whether a `conversion` is in it.

    Args:
        timeout: the longest gap within a session; a gap of exactly that long does not end it.
        use: "timeout", or "session_id": the sessions are those that the client says; events without one are in none.
        by: "entry" or "exit", the name of the first or last event; or a column or property, as in the first event.
        value: only sessions of this value of `by`; None, those that have none.
        limit: rows at the most, up to 10,000.
        before: only what comes after the session of this `seq` in the list: the last of a page gives the next page.
        engaged_after: how long a session lasts that is engaged for that alone.
        conversion: an event that makes a session engaged.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`; the others are as if they had never been.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.
    """
    check_limit("limit", limit, _MOST)
    check_cursor(before)
    if by is not None and (not isinstance(by, str) or not by):
        raise QueryRefused(f"by is {str(by)[:40]!r}", hint="Name a column or a property, entry or exit")
    if by is None and value is not None:
        raise QueryRefused(f"value is {str(value)[:40]!r}, of nothing", hint="Say by which column or property")
    converted = None if conversion is None else EventFilter.of(conversion, "conversion")
    scope = await inquiry.scope(
        start=start,
        end=end,
        where=where,
        cohort=cohort,
        as_of=as_of,
        selections=() if converted is None else (converted,),
    )
    bind = Parameters()
    group, of_first = grouped(inquiry, by)
    # One value of a session is all that its SELECT has room for, and of_first is a text or NULL.
    both = f"{{'id': session_id, 'of_first': CAST({of_first} AS VARCHAR)}}"
    every = sessions_sql(scope, bind, timeout, use, converted, both)
    conditions = []
    if group is not None:
        held = "value.of_first" if group == "value" else group
        conditions.append(f"{held} IS NOT DISTINCT FROM {bind(value)}")
    if before is not None:
        # As in timeline: a page must not change when a session comes in between, so its last event finds it.
        last = f"(SELECT epoch_us(timestamp) FROM events WHERE seq = {bind(before)})"
        conditions.append(f"(start_us < {last} OR start_us = {last} AND seq < {bind(before)})")
    sql = f"""
        SELECT seq, person_id, value.id AS session_id, make_timestamptz(start_us) AS start,
            make_timestamptz(start_us + us_long) AS "end", us_long / 1e6 AS seconds, events, entry, exit,
            {engaged_sql(bind, engaged_after)} AS engaged, conversions > 0 AS converted
        FROM ({every}) WHERE {" AND ".join(conditions) or "true"} ORDER BY start_us DESC, seq DESC LIMIT {bind(limit)}
    """
    return await inquiry.rows(sql, bind, scope, report="session_list")
