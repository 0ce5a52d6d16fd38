"""Errors: the requests that fail, by status, path or other columns. Exceptions of Lakebed: lakebed/errors.py."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.events.promotions import quoted
from lakebed.query.result import Result
from lakebed.reports.arguments import MAX_ROWS, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.performance import REQUEST, columns_of, failed
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time

__all__ = ["errors"]


_ERRORS_COLUMNS = ("requests", "errors", "error_rate", "share", "people", "first", "last")


async def errors(
    context: ReportContext,
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
    `requests` is the number of requests in the group, `error_rate` the fraction of them that failed, `share` the
    group's fraction of all errors, also of those in groups beyond `limit`. `people` is the number of people with an
    error in the group; `first` and `last` are the times of its first and last error. Groups without errors have no row.

    Args:
        by: columns or properties to group by: status_code, method, path, or "error", the exception's class.
        limit: largest number of rows, up to 10,000.
        event: requests to count; by default all.
        errors_from: lowest `status_code` that is an error; 500 leaves out the mistakes of clients.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.
    """
    check_whole_number("limit", limit, MAX_ROWS)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    columns = columns_of(context, by, taken=_ERRORS_COLUMNS)
    if not columns:
        raise QueryRefused("`by` is empty", hint="Name columns or properties: status_code, path, method, error")
    bind = Parameters()
    # The columns get generated names, because a property may have the name of anything in this SQL.
    keys = [f"key_{number}" for number in range(len(columns))]
    keyed = ", ".join(f"{sql} AS {key}" for key, sql in zip(keys, columns.values(), strict=True))
    shown = ", ".join(f"{key} AS {quoted(name)}" for key, name in zip(keys, columns, strict=True))
    sql = f"""
        WITH requests AS (
            SELECT {keyed}, person_id AS person, timestamp AS moment, {failed(bind, errors_from)} AS failed
            FROM events WHERE {REQUEST} AND {selection.condition(bind)} AND {scope.condition(bind)}
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
    return await context.rows(sql, bind, scope, report="errors")
