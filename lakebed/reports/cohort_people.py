"""Cohort people: the people of a saved cohort, and how many they are."""

from __future__ import annotations

from lakebed.query.result import Result
from lakebed.reports.arguments import MAX_ROWS, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import Parameters, Time

__all__ = ["cohort_people", "cohort_size"]


async def cohort_people(
    context: ReportContext, cohort: str, *, limit: int = 100, after: str | None = None, as_of: Time | None = None
) -> Result:
    """Rows `person_id, first_seen, last_seen, events`: the people of a saved cohort, in order of their ids.

    Args:
        cohort: name of the cohort.
        limit: largest number of rows, up to 10,000.
        after: `person_id` of the last row of the page before: only people who come after it.
        as_of: moment of the answer: the cohort as it was defined then, and the people as they were then.
    """
    check_whole_number("limit", limit, MAX_ROWS)
    scope = await context.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    later = "" if after is None else f" AND person_id > {bind(after)}"
    sql = f"""
        SELECT person_id, min(timestamp) AS first_seen, max(timestamp) AS last_seen, count(*) AS events
        FROM events WHERE {scope.condition(bind)}{later} GROUP BY person_id ORDER BY person_id LIMIT {bind(limit)}
    """
    return await context.rows(sql, bind, scope, report="cohort_people")


async def cohort_size(context: ReportContext, cohort: str, *, as_of: Time | None = None) -> Result:
    """One row `people`: the number of people in a saved cohort.

    Args:
        cohort: name of the cohort.
        as_of: moment of the answer: the cohort as it was defined then, and the people as they were then.
    """
    scope = await context.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    sql = f"SELECT count(DISTINCT person_id) AS people FROM events WHERE {scope.condition(bind)}"
    return await context.rows(sql, bind, scope, report="cohort_size")
