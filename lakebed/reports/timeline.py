"""Timeline: what one person did, newest first: the list on a person's page."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.limits import check_cursor, check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["timeline"]

_MOST = 10_000


async def timeline(
    inquiry: ReportContext,
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

    The events are those of all ids that belong to the person. Of equal timestamps, what arrived later comes first. An
    id of which no event is known gives no rows.

    Args:
        person: an id of theirs: the user id of some event, or the anonymous id of one that has no user id.
        limit: rows at the most, up to 10,000.
        before: only what comes after the event of this `seq` in the list: the last of a page gives the next page.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`.
        as_of: only what was received up to then, and who was who then.
    """
    if not isinstance(person, str) or not person:
        raise QueryRefused(f"person is {str(person)[:40]!r}", hint="Give a user id or an anonymous id")
    check_limit("limit", limit, _MOST)
    check_cursor(before)
    scope = await inquiry.scope(start=start, end=end, where=where, as_of=as_of)
    bind = Parameters()
    earlier = ""
    if before is not None:
        # A page must not change when an event comes in between, so it is found by its last event and not by a number.
        last = f"(SELECT timestamp FROM events WHERE seq = {bind(before)})"
        earlier = f"AND (timestamp < {last} OR timestamp = {last} AND seq < {bind(before)})"
    sql = f"""
        SELECT seq, timestamp, type, event, user_id, anonymous_id, session_id, properties FROM events
        WHERE person_id = (
            SELECT any_value(person_id) FROM events WHERE coalesce(user_id, anonymous_id) = {bind(person)}
        ) AND {scope.condition(bind)} {earlier}
        ORDER BY timestamp DESC, seq DESC LIMIT {bind(limit)}
    """
    return await inquiry.rows(sql, bind, scope, report="timeline")
