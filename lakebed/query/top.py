"""Top: the most frequent events, pages or values of a property."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.query.binder import Binder
from lakebed.query.inquiry import Inquiry
from lakebed.query.limit import check_limit
from lakebed.query.measure import column_sql
from lakebed.query.result import Result
from lakebed.query.scope import Time
from lakebed.query.selection import EventLike, Selection
from lakebed.query.series import HOURLY

__all__ = ["top"]

_MOST = 10_000


async def top(
    inquiry: Inquiry,
    what: str = "event",
    *,
    n: int = 10,
    people: bool = True,
    event: EventLike | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `value, count, people, share`: the values that most events have, and the share of all that have one.

    Of equal counts, those that sort first come first. Events without the value do not count.

    Args:
        what: a column, a promoted column or a property, as text.
        n: rows at the most.
        people: whether to count them; without, names of events come from the rollup of hours, whatever the history.
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
    chosen = Selection.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    bind = Binder()
    named = what == "event" and not people and chosen.where is None
    hours = await inquiry.hours(scope) if named else None
    if hours is not None:
        source, count, condition = HOURLY, "CAST(sum(count) AS BIGINT)", chosen.condition(bind)
    else:
        source, count = "events", "count(*)"
        condition = f"{chosen.condition(bind)} AND {scope.condition(bind)}"
    column = f"CAST({column_sql(what, inquiry.promotions)} AS VARCHAR)"
    persons = "count(DISTINCT person_id) AS people, " if people else ""
    sql = f"""
        SELECT * FROM (
            SELECT value, count, {"people, " if people else ""}count / sum(count) OVER () AS share FROM (
                SELECT {column} AS value, {persons}{count} AS count FROM {source}
                WHERE {condition} AND {column} IS NOT NULL GROUP BY value
            )
        ) ORDER BY count DESC, value LIMIT {bind(n)}
    """
    return await inquiry.rows(sql, bind, scope, report="top", tables=hours)
