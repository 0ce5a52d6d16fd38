"""Who is in a cohort."""

from __future__ import annotations

from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["cohort_people", "cohort_size"]

_MOST = 10_000


async def cohort_people(
    inquiry: ReportContext, cohort: str, *, limit: int = 100, after: str | None = None, as_of: Time | None = None
) -> Result:
    """Rows `person_id, first_seen, last_seen, events`: the people of a saved cohort, in order of their ids.

    Args:
        cohort: its name.
        limit: rows at the most, up to 10,000.
        after: only ids that sort after this one: the last of a page gives the next page.
        as_of: the cohort as it was defined, and the people as they were, then.
    """
    check_limit("limit", limit, _MOST)
    scope = await inquiry.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    later = "" if after is None else f" AND person_id > {bind(after)}"
    sql = f"""
        SELECT person_id, min(timestamp) AS first_seen, max(timestamp) AS last_seen, count(*) AS events
        FROM events WHERE {scope.condition(bind)}{later} GROUP BY person_id ORDER BY person_id LIMIT {bind(limit)}
    """
    return await inquiry.rows(sql, bind, scope, report="cohort_people")


async def cohort_size(inquiry: ReportContext, cohort: str, *, as_of: Time | None = None) -> Result:
    """One row `people`: how many are in a saved cohort.

    Args:
        cohort: its name.
        as_of: the cohort as it was defined, and the people as they were, then.
    """
    scope = await inquiry.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    sql = f"SELECT count(DISTINCT person_id) AS people FROM events WHERE {scope.condition(bind)}"
    return await inquiry.rows(sql, bind, scope, report="cohort_size")
