"""Performance: how long requests took and how many failed, by time, path or another column."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql, quoted
from lakebed.query.result import Result
from lakebed.reports.arguments import check_name, check_number, check_whole_number, refuse
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time

__all__ = ["performance"]

REQUEST = "(duration_ms IS NOT NULL OR status_code IS NOT NULL)"
"""SQL that is true for an event that is a request."""
_PERFORMANCE_COLUMNS = (
    "count",
    "avg_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "max_ms",
    "errors",
    "error_rate",
    "apdex",
    "time",
)
_LOWEST_STATUS, _HIGHEST_STATUS = 100, 999


async def performance(
    context: ReportContext,
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

    A request is an event with a `duration_ms` or a `status_code`. Percentiles are exact and over requests with a
    duration: with n of them in order, percentile q lies at position q(n - 1), if that is between two of them on the
    line that joins them. `error_rate` is a fraction of `count` from 0 to 1. `apdex` is (satisfied + tolerating / 2) /
    all, over requests that have a duration or failed. A satisfied request takes at most `threshold_ms`, a tolerating
    one at most four times as long; a failed request is neither, however fast it was. Periods without requests have no
    row. With `compare` the last column is `period`: first "current", then "previous".

    Args:
        grain: length of a period: minute, hour, day, week or month; "" or None gives one row, without `time`.
        by: columns or properties to group by, such as "path"; in each period, groups with most requests come first.
        event: requests to count; by default all.
        path: path of the requests to count, as the app declares it: `/orders/{id}`; by default all.
        threshold_ms: longest duration of a request that satisfies, milliseconds.
        errors_from: lowest `status_code` that is an error; 500 leaves out the mistakes of clients.
        compare: whether to add the rows of the period of the same length before `start`. Needs `start` and `end`.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    check_number("threshold_ms", threshold_ms, hint="Give milliseconds above 0")
    if path is not None and not isinstance(path, str):
        refuse("path", path, "Give a path as text")
    calendar = Calendar.of(tz, week_start, grain or "day")
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    columns = columns_of(context, by, taken=(*_PERFORMANCE_COLUMNS, "period") if compare else _PERFORMANCE_COLUMNS)
    bind = Parameters()
    # The columns get generated names, because a property may have the name of anything in this SQL.
    keys = [f"key_{number}" for number in range(len(columns))]
    times, periods, time = [], (["period"] if compare else []), ""
    if grain:
        times, time = ["time"], f"{calendar.start(grain, calendar.number(grain, 'timestamp'))} AS time, "
    keyed = "".join(f"{sql} AS {key}, " for key, sql in zip(keys, columns.values(), strict=True))
    shown = [*times, *(f"{key} AS {quoted(name)}" for key, name in zip(keys, columns, strict=True))]
    of_path = "" if path is None else f" AND path = {bind(path)}"
    limit, is_failed = bind(threshold_ms), failed(bind, errors_from)
    read = scope.between(scope.previous().start_us, scope.end_us) if compare else scope
    period = f"{scope.period(bind)} AS period, " if compare else ""
    groups = [*times, *keys, *periods]
    group = f"GROUP BY {', '.join(groups)}" if groups else "HAVING count(*) > 0"
    order = [*periods, *times, "count DESC", *(f"requests.{key} NULLS FIRST" for key in keys)]
    sql = f"""
        WITH requests AS (
            SELECT {time}{keyed}{period}duration_ms AS ms, {is_failed} AS failed,
                NOT {is_failed} AND duration_ms <= {limit} AS satisfied,
                NOT {is_failed} AND duration_ms > {limit} AND duration_ms <= 4 * {limit} AS tolerating
            FROM events WHERE {REQUEST} AND {selection.condition(bind)} AND {read.condition(bind)}{of_path}
        )
        SELECT {"".join(f"{column}, " for column in shown)}count(*) AS count, favg(ms) AS avg_ms,
            quantile_cont(ms, 0.5) AS p50_ms, quantile_cont(ms, 0.95) AS p95_ms, quantile_cont(ms, 0.99) AS p99_ms,
            max(ms) AS max_ms, count(*) FILTER (failed) AS errors, count(*) FILTER (failed) / count(*) AS error_rate,
            (count(*) FILTER (satisfied) + count(*) FILTER (tolerating) / 2)
                / nullif(count(*) FILTER (failed OR ms IS NOT NULL), 0) AS apdex{", period" if compare else ""}
        FROM requests {group} ORDER BY {", ".join(order)}
    """
    return await context.rows(sql, bind, scope, report="performance")


def failed(bind: Parameters, errors_from: int) -> str:
    """SQL that is true for a failed request, and never NULL. Raises QueryRefused if `errors_from` is not a status."""
    hint = "Give a status, such as 400 or 500"
    check_whole_number("errors_from", errors_from, _HIGHEST_STATUS, minimum=_LOWEST_STATUS, hint=hint)
    return f"coalesce(status_code >= {bind(errors_from)}, false)"


def columns_of(context: ReportContext, by: str | Sequence[str] | None, *, taken: Sequence[str]) -> dict[str, str]:
    """The SQL of each column or property in `by`, by name.

    Raises:
        QueryRefused: a name is empty, is listed twice, or is in `taken`, the names of the report's own columns.
    """
    names = [by] if isinstance(by, str) else list(by or ())
    for position, name in enumerate(names):
        check_name("by", name, "Name columns or properties")
        if name.lower() in [*taken, *(earlier.lower() for earlier in names[:position])]:
            raise QueryRefused(f"`by` has {name[:40]!r}, which the report has already", hint="Name another column")
    return {name: column_sql(name, context.promotions) for name in names}
