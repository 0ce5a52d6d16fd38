"""Funnel times: how long people took from one step of a funnel to another."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.duration import Duration
from lakebed.reports.event_filter import EventLike
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["funnel_times"]

_MOST_BINS = 200
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDTHS_S = (
    *(0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30),
    *(one * _MINUTE for one in (1, 2, 5, 10, 15, 30)),
    *(one * _HOUR for one in (1, 2, 3, 6, 12)),
    *(one * _DAY for one in (1, 2, 7, 14, 28, 91, 364, 3640, 36_400)),
)


async def funnel_times(
    inquiry: ReportContext,
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
    and not its end; those in between that nobody falls into are rows, too. Widths are round: a second, a minute, a day.

    Args:
        steps: as for `funnel`, like all that is not said here.
        within: from the first step to the last, both included.
        from_step: 1 for the first.
        to_step: the last by default.
        bins: how many rows there may be, up to 200; their width follows from it.
        start: included; None is no bound, like `end`.
        end: excluded.
        order: "ordered", "strict" or "any".
        exclude: events that end an attempt.
        holding: a column or property that has one value in all steps.
        allow_equal: events of one timestamp come one after the other, in the order in which they were received.
        where: SQL over the columns of `events`; other events are not looked at.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.

    Raises:
        QueryRefused: an argument cannot be read, or does not go with another.
        QueryError: with DuckDB's message, for a bad condition.
    """
    attempts = FunnelAttempts.of(
        steps,
        within,
        order,
        allow_equal=allow_equal,
        exclude=exclude,
        holding=holding,
        promotions=inquiry.promotions,
    )
    last = len(attempts.steps)
    to_step = last if to_step is None else to_step
    check_limit("from_step", from_step, last)
    check_limit("to_step", to_step, last)
    if from_step >= to_step:
        raise QueryRefused(f"from step {from_step} to step {to_step} of {last}", hint="Give two steps, in order")
    check_limit("bins", bins, _MOST_BINS)
    scope = await inquiry.scope(
        start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=attempts.selections
    )
    bind = Parameters()
    widths = ", ".join(str(round(width * 1e6)) for width in _WIDTHS_S)
    sql = f"""
        WITH took AS (
            SELECT t{to_step} - t{from_step} AS us FROM ({attempts.sql(scope, bind)}) WHERE depth >= {to_step}
        ), chosen AS (
            SELECT *, list_extract(list_filter([{widths}], lambda one: high // one - low // one < {bins}), 1) AS width
            FROM (SELECT min(us) AS low, max(us) AS high FROM took)
        ), counted AS (
            SELECT us // width AS bin, count(*) AS people FROM took CROSS JOIN chosen GROUP BY bin
        )
        SELECT bin * width / 1e6 AS from_seconds, (bin + 1) * width / 1e6 AS to_seconds, coalesce(people, 0) AS people
        FROM (SELECT width, unnest(range(low // width, high // width + 1)) AS bin FROM chosen)
        LEFT JOIN counted USING (bin) ORDER BY bin
    """
    return await inquiry.rows(sql, bind, scope, report="funnel_times")
