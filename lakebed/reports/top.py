"""Top: the most frequent events, pages or values of a property."""

from __future__ import annotations

from lakebed.events.promotions import column_sql
from lakebed.query.result import Result
from lakebed.query.router import HOURLY
from lakebed.reports.arguments import MAX_ROWS, OTHER, check_name, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time

__all__ = ["top"]


async def top(
    context: ReportContext,
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
    """Rows `value, count, people, share`: the values that most events have, and their share of all events with a value.

    Of equal counts, those that sort first come first. Events without a value do not count. `share` is of all events
    with a value, whether it has a row or not; with `other` the shares add up to 1.

    Args:
        what: name of a column, a promoted column or a property, read as text.
        n: largest number of rows, up to 10,000.
        people: whether to count people; without them, names of events come from the hourly rollup, however long the
            history is.
        other: whether to add a last row "(other)" for all values without a row of their own, if there are any.
        event: events to count; by default all.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.
    """
    check_whole_number("n", n, MAX_ROWS)
    check_name("what", what)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    bind = Parameters()
    is_rolled_up = what == "event" and not people and selection.where is None
    hours = await context.hours(scope) if is_rolled_up else None
    if hours is not None:
        source, count, condition = HOURLY, "CAST(sum(count) AS BIGINT)", selection.condition(bind)
    else:
        source, count = "events", "count(*)"
        condition = f"{selection.condition(bind)} AND {scope.condition(bind)}"
    column = f"CAST({column_sql(what, context.promotions)} AS VARCHAR)"
    counted = f"FROM {source} WHERE {condition} AND {column} IS NOT NULL"
    rest = ""
    if other:
        # A person may have several of these values, so people are counted again.
        people_sql = f"(SELECT count(DISTINCT person_id) {counted} AND {column} NOT IN (SELECT value FROM best)), "
        rest = f"""UNION ALL
            SELECT {bind(OTHER)}, CAST(sum(count) AS BIGINT), {people_sql if people else ""}
                sum(count) / (SELECT sum(count) FROM counts), true
            FROM counts ANTI JOIN best USING (value) HAVING count(*) > 0"""
    sql = f"""
        WITH counts AS (
            SELECT {column} AS value, {count} AS count{", count(DISTINCT person_id) AS people" if people else ""}
            {counted} GROUP BY ALL
        ), best AS (
            SELECT *, count / sum(count) OVER () AS share, false AS is_rest FROM counts
            ORDER BY count DESC, value LIMIT {bind(n)}
        )
        SELECT * EXCLUDE (is_rest) FROM (FROM best {rest}) ORDER BY is_rest, count DESC, value
    """
    return await context.rows(sql, bind, scope, report="top", tables=hours)
