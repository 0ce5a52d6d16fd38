"""Performance: how long requests took and how many failed, by time, path or anything else."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql, quoted
from lakebed.query.result import Result
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["REQUEST", "columns_of", "failed", "performance"]

REQUEST = "(duration_ms IS NOT NULL OR status_code IS NOT NULL)"
"""SQL that is true for an event that says how a request went."""
_COUNTED = ("count", "avg_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms", "errors", "error_rate", "apdex", "time")
_STATUSES = range(100, 1000)


async def performance(
    inquiry: ReportContext,
    *,
    grain: Grain | None = "hour",
    by: str | Sequence[str] | None = None,
    event: EventLike | None = None,
    path: str | None = None,
    threshold_ms: float = 500,
    errors_from: int = 400,
    compare: bool = False,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, count, avg_ms, p50_ms, p95_ms, p99_ms, max_ms, errors, error_rate, apdex`, and the `by` columns.

    A request is an event with a `duration_ms` or a `status_code`. Percentiles are exact, of those with a duration: with
    n of them in order, percentile q lies at position q(n - 1), between two of them on the line that joins them.
    `error_rate` is a fraction of `count` from 0 to 1. `apdex` is (satisfied + tolerating / 2) / all, over requests that
    have a duration or failed: satisfied are those of at most `threshold_ms`, tolerating those of at most four times as
    much, and one that failed is neither, however fast it was. Periods without requests have no row. With `compare` a
    column `period` comes behind: "current", and then "previous".

    Args:
        grain: minute, hour, day, week or month; "" or None: no `time`, one row for all of it.
        by: columns or properties, such as "path"; rows come with the most requests first within each period.
        event: only these events.
        path: only requests of this path, as it was declared: `/orders/{id}`.
        threshold_ms: what satisfies, milliseconds.
        errors_from: the lowest `status_code` that is an error; 500 leaves out what clients did wrong.
        compare: give the rows of the period of the same length before `start`, too. Needs `start` and `end`.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`.
        cohort: only people of this saved cohort.
        tz: whose days, weeks and months, an IANA name.
        week_start: monday, sunday or saturday.
        as_of: only what was received up to then.
    """
    if isinstance(threshold_ms, bool) or not isinstance(threshold_ms, (int, float)) or not threshold_ms > 0:
        raise QueryRefused(f"threshold_ms is {str(threshold_ms)[:40]!r}", hint="Give milliseconds above 0")
    if path is not None and not isinstance(path, str):
        raise QueryRefused(f"path is {str(path)[:40]!r}", hint="Give a path as text")
    calendar = Calendar.of(tz, week_start, grain or "day")
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    columns = columns_of(inquiry, by, taken=(*_COUNTED, "period") if compare else _COUNTED)
    bind = Parameters()
    # Names of ours, as one of `by` may be called as anything in this SQL.
    time, keys = "", [f"key_{at}" for at in range(len(columns))]
    if grain:
        time = f"{calendar.start(grain, calendar.number(grain, 'timestamp'))} AS time, "
    picked = "".join(f"{sql} AS {key}, " for key, sql in zip(keys, columns.values(), strict=True))
    shown = [
        *(["time"] if grain else []),
        *(f"{key} AS {quoted(name)}" for key, name in zip(keys, columns, strict=True)),
    ]
    of_path = "" if path is None else f" AND path = {bind(path)}"
    limit, lost = bind(threshold_ms), failed(bind, errors_from)
    grouped, periods = ["time"] * bool(grain) + keys, ["period"] * compare
    read = scope.between(scope.previous().start_us, scope.end_us) if compare else scope
    period = f"{scope.period(bind)} AS period, " if compare else ""
    group = f"GROUP BY {', '.join(grouped + periods)}" if grouped + periods else "HAVING count(*) > 0"
    order = [*periods, *(["time"] if grain else []), "count DESC", *(f"requests.{key} NULLS FIRST" for key in keys)]
    sql = f"""
        WITH requests AS (
            SELECT {time}{picked}{period}duration_ms AS ms, {lost} AS failed,
                NOT {lost} AND duration_ms <= {limit} AS satisfied,
                NOT {lost} AND duration_ms > {limit} AND duration_ms <= 4 * {limit} AS tolerating
            FROM events WHERE {REQUEST} AND {chosen.condition(bind)} AND {read.condition(bind)}{of_path}
        )
        SELECT {"".join(f"{one}, " for one in shown)}count(*) AS count, favg(ms) AS avg_ms,
            quantile_cont(ms, 0.5) AS p50_ms, quantile_cont(ms, 0.95) AS p95_ms, quantile_cont(ms, 0.99) AS p99_ms,
            max(ms) AS max_ms, count(*) FILTER (failed) AS errors, count(*) FILTER (failed) / count(*) AS error_rate,
            (count(*) FILTER (satisfied) + count(*) FILTER (tolerating) / 2)
                / nullif(count(*) FILTER (failed OR ms IS NOT NULL), 0) AS apdex{"".join(f", {one}" for one in periods)}
        FROM requests {group} ORDER BY {", ".join(order)}
    """
    return await inquiry.rows(sql, bind, scope, report="performance")


def failed(bind: Parameters, errors_from: int) -> str:
    """SQL that is true for a request that failed, and never NULL. Raises QueryRefused for what is no status."""
    if isinstance(errors_from, bool) or not isinstance(errors_from, int) or errors_from not in _STATUSES:
        raise QueryRefused(f"errors_from is {str(errors_from)[:40]!r}", hint="Give a status, such as 400 or 500")
    return f"coalesce(status_code >= {bind(errors_from)}, false)"


def columns_of(inquiry: ReportContext, by: str | Sequence[str] | None, *, taken: Sequence[str]) -> dict[str, str]:
    """The SQL of what is grouped by, by name.

    Raises:
        QueryRefused: one is no name, comes twice, or is called as a column of the report is.
    """
    names = [by] if isinstance(by, str) else list(by or ())
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise QueryRefused(f"by is {str(name)[:40]!r}", hint="Name columns or properties")
        if name.lower() in [*taken, *(one.lower() for one in names[:at])]:
            raise QueryRefused(f"by names {name[:40]!r}, which the report has already", hint="Name another column")
    return {name: column_sql(name, inquiry.promotions) for name in names}
