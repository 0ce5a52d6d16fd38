"""Top: the most frequent events, pages or values of a property."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql
from lakebed.query.result import Result
from lakebed.query.router import HOURLY
from lakebed.reports.breakdown import OTHER
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["top"]

_MOST = 10_000


async def top(
    inquiry: ReportContext,
    what: str = "event",
    *,
    n: int = 10,
    people: bool = True,
    other: bool = False,
    event: EventLike | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `value, count, people, share`: the values that most events have, and the share of all that have one.

    Of equal counts, those that sort first come first. Events without the value do not count. `share` is of all events
    that have a value, also one that has no row; with `other` the shares add up to 1.

    Args:
        what: a column, a promoted column or a property, as text.
        n: rows at the most.
        people: whether to count them; without, names of events come from the rollup of hours, whatever the history.
        other: add a last row "(other)" for all values that have no row of their own, if there are any.
        event: only these events.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.
    """
    check_limit("n", n, _MOST)
    if not isinstance(what, str) or not what:
        raise QueryRefused(f"what is {str(what)[:40]!r}", hint="Name a column or a property")
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    bind = Parameters()
    named = what == "event" and not people and chosen.where is None
    hours = await inquiry.hours(scope) if named else None
    if hours is not None:
        source, count, condition = HOURLY, "CAST(sum(count) AS BIGINT)", chosen.condition(bind)
    else:
        source, count = "events", "count(*)"
        condition = f"{chosen.condition(bind)} AND {scope.condition(bind)}"
    column = f"CAST({column_sql(what, inquiry.promotions)} AS VARCHAR)"
    counted = f"FROM {source} WHERE {condition} AND {column} IS NOT NULL"
    rest = ""
    if other:
        # Somebody may have several of these values, so people are counted anew.
        anew = f"(SELECT count(DISTINCT person_id) {counted} AND {column} NOT IN (SELECT value FROM best)), "
        rest = f"""UNION ALL
            SELECT {bind(OTHER)}, CAST(sum(count) AS BIGINT), {anew if people else ""}
                sum(count) / (SELECT sum(count) FROM found), true
            FROM found ANTI JOIN best USING (value) HAVING count(*) > 0"""
    sql = f"""
        WITH found AS (
            SELECT {column} AS value, {count} AS count{", count(DISTINCT person_id) AS people" if people else ""}
            {counted} GROUP BY ALL
        ), best AS (
            SELECT *, count / sum(count) OVER () AS share, false AS is_rest FROM found
            ORDER BY count DESC, value LIMIT {bind(n)}
        )
        SELECT * EXCLUDE (is_rest) FROM (FROM best {rest}) ORDER BY is_rest, count DESC, value
    """
    return await inquiry.rows(sql, bind, scope, report="top", tables=hours)
