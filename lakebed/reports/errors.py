"""Errors: which requests fail, by status, path, method, or the exception behind it."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.events.promotions import quoted
from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.performance import REQUEST, columns_of, failed
from lakebed.reports.scope import Time

__all__ = ["errors"]

_COUNTED = ("requests", "errors", "error_rate", "share", "people", "first", "last")
_MOST = 10_000


async def errors(
    inquiry: ReportContext,
    by: str | Sequence[str] = ("status_code", "method", "path"),
    *,
    limit: int = 100,
    event: EventLike | None = None,
    errors_from: int = 400,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows with the `by` columns and `errors, requests, error_rate, share, people, first, last`: most errors first.

    A request is an event with a `duration_ms` or a `status_code`; it failed if the status is at least `errors_from`.
    `requests` are all of the group, `error_rate` is the fraction of them that failed, `share` is of all errors, also of
    those that are not shown. `people` met one of them, `first` and `last` are when. Groups without errors have no row.

    Args:
        by: columns or properties: status_code, method, path, or "error", the exception's class.
        limit: rows at the most.
        event: only these events.
        errors_from: the lowest `status_code` that is an error; 500 leaves out what clients did wrong.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.
    """
    check_limit("limit", limit, _MOST)
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    columns = columns_of(inquiry, by, taken=_COUNTED)
    if not columns:
        raise QueryRefused("by names nothing", hint="Name columns or properties: status_code, path, method, error")
    bind = Parameters()
    # Names of ours, as one of `by` may be called as anything in this SQL.
    keys = [f"key_{at}" for at in range(len(columns))]
    picked = ", ".join(f"{sql} AS {key}" for key, sql in zip(keys, columns.values(), strict=True))
    shown = ", ".join(f"{key} AS {quoted(name)}" for key, name in zip(keys, columns, strict=True))
    sql = f"""
        WITH requests AS (
            SELECT {picked}, person_id AS person, timestamp AS moment, {failed(bind, errors_from)} AS failed
            FROM events WHERE {REQUEST} AND {chosen.condition(bind)} AND {scope.condition(bind)}
        ), groups AS (
            SELECT {", ".join(keys)}, count(*) FILTER (failed) AS errors, count(*) AS requests,
                count(DISTINCT person) FILTER (failed) AS people, min(moment) FILTER (failed) AS first,
                max(moment) FILTER (failed) AS last
            FROM requests GROUP BY {", ".join(keys)}
        )
        SELECT {shown}, errors, requests, errors / requests AS error_rate,
            errors / sum(errors) OVER () AS share, people, first, last
        FROM groups WHERE errors > 0 ORDER BY errors DESC, {", ".join(f"groups.{key} NULLS FIRST" for key in keys)}
        LIMIT {bind(limit)}
    """
    return await inquiry.rows(sql, bind, scope, report="errors")
