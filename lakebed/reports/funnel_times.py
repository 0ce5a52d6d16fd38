"""Funnel times: how long people took from one step of a funnel to another."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.arguments import Duration, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.scope import EventLike, Parameters, Time

__all__ = ["funnel_times"]

_MAX_BINS = 200
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDTHS_S = (
    *(0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 28, 91, 364, 3640, 36_400)),
)


async def funnel_times(
    context: ReportContext,
    steps: Sequence[EventLike],
    within: Duration = "7d",
    *,
    from_step: int = 1,
    to_step: int | None = None,
    bins: int = 24,
    start: Time | None = None,
    end: Time | None = None,
    order: Order = "ordered",
    exclude: Sequence[EventLike] | None = None,
    holding: str | None = None,
    allow_equal: bool = False,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `from_seconds, to_seconds, people`: a histogram of the time between two steps, in whole bins of one width.

    It counts the people who reached `to_step`, each with the attempt that counts in `funnel`. A bin includes its start
    and not its end; bins in between that hold nobody are rows, too. Widths are round: a second, a minute, a day.

    Args:
        steps: steps as for `funnel`, like every argument that is not explained here.
        within: longest time from the first step to the last, both included.
        from_step: number of a step, 1 for the first.
        to_step: number of a later step; by default the last.
        bins: largest number of rows, up to 200; their width follows from it.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        order: "ordered", "strict" or "any".
        exclude: events that end an attempt.
        holding: column or property that has one value in all steps.
        allow_equal: whether events of one timestamp come one after the other, in the order in which they were received.
        where: SQL condition over the columns of `events`; other events are ignored.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.

    Raises:
        QueryRefused: an argument is not valid, or does not go with another.
        QueryError: a condition is not valid SQL; with DuckDB's message.
    """
    attempts = FunnelAttempts.of(steps, within, order, exclude, holding, context.promotions, allow_equal=allow_equal)
    last = len(attempts.steps)
    to_step = last if to_step is None else to_step
    check_whole_number("from_step", from_step, last)
    check_whole_number("to_step", to_step, last)
    if from_step >= to_step:
        raise QueryRefused(f"from step {from_step} to step {to_step} of {last}", hint="Give two steps, in order")
    check_whole_number("bins", bins, _MAX_BINS)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=attempts.filters)
    bind = Parameters()
    widths = ", ".join(str(round(width * 1e6)) for width in _WIDTHS_S)
    sql = f"""
        WITH took AS (
            SELECT t{to_step} - t{from_step} AS us FROM ({attempts.sql(scope, bind)}) WHERE depth >= {to_step}
        ), bounds AS (
            SELECT *, list_extract(list_filter([{widths}], lambda w: high // w - low // w < {bins}), 1) AS width
            FROM (SELECT min(us) AS low, max(us) AS high FROM took)
        ), counted AS (
            SELECT us // width AS bin, count(*) AS people FROM took CROSS JOIN bounds GROUP BY bin
        )
        SELECT bin * width / 1e6 AS from_seconds, (bin + 1) * width / 1e6 AS to_seconds, coalesce(people, 0) AS people
        FROM (SELECT width, unnest(range(low // width, high // width + 1)) AS bin FROM bounds)
        LEFT JOIN counted USING (bin) ORDER BY bin
    """
    return await context.rows(sql, bind, scope, report="funnel_times")
