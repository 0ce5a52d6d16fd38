"""Timeline: the events of one person, newest first."""

from __future__ import annotations

from lakebed.query.result import Result
from lakebed.reports.arguments import (
    MAX_ROWS,
    check_cursor,
    check_name,
    check_whole_number,
)
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import Parameters, Time

__all__ = ["timeline"]


async def timeline(
    context: ReportContext,
    person: str,
    *,
    limit: int = 100,
    before: int | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `seq, timestamp, type, event, user_id, anonymous_id, session_id, properties`: one person, newest first.

    The rows are the events of all ids of the person. Of equal timestamps, the event that arrived later comes first. An
    id without events gives no rows.

    Args:
        person: id of the person: the user id of an event, or the anonymous id of an event without a user id.
        limit: largest number of rows, up to 10,000.
        before: `seq` of the last row of the page before: only events that come after it in the list.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        as_of: moment of the answer: only events received up to then count, and people are as they were then.
    """
    check_name("person", person, "Give a user id or an anonymous id")
    check_whole_number("limit", limit, MAX_ROWS)
    check_cursor(before)
    scope = await context.scope(start=start, end=end, where=where, as_of=as_of)
    bind = Parameters()
    earlier = ""
    if before is not None:
        # A page must not change when a new event comes in between, so it starts after an event and not at a number.
        last = f"(SELECT timestamp FROM events WHERE seq = {bind(before)})"
        earlier = f"AND (timestamp < {last} OR timestamp = {last} AND seq < {bind(before)})"
    sql = f"""
        SELECT seq, timestamp, type, event, user_id, anonymous_id, session_id, properties FROM events
        WHERE person_id = (
            SELECT any_value(person_id) FROM events WHERE coalesce(user_id, anonymous_id) = {bind(person)}
        ) AND {scope.condition(bind)} {earlier}
        ORDER BY timestamp DESC, seq DESC LIMIT {bind(limit)}
    """
    return await context.rows(sql, bind, scope, report="timeline")
