"""Funnel people: the people who went on at a step of a funnel, or did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from lakebed.query.result import Result
from lakebed.reports.arguments import MAX_ROWS, Duration, check_choice, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.scope import EventLike, Parameters, Time

__all__ = ["funnel_people"]

Outcome = Literal["dropped", "converted"]


async def funnel_people(
    context: ReportContext,
    steps: Sequence[EventLike],
    within: Duration = "7d",
    *,
    step: int | None = None,
    outcome: Outcome = "dropped",
    limit: int = 100,
    after: str | None = None,
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
    """Rows `person_id, step, began, reached, seconds` of the people who a number in `funnel` counts, by `person_id`.

    "dropped" at step 3 are those who reached step 2 and not step 3; "converted" at step 3 are those who reached it.
    They are as many as `funnel` says with the same arguments. `step` is the furthest that the person reached, `began`
    and `reached` are the times of the first and of that step, `seconds` lie between them.

    Args:
        steps: steps as for `funnel`, like every argument that is not explained here.
        within: longest time from the first step to the last, both included.
        step: number of a step, 1 for the first; by default the last. At the first one nobody has dropped.
        outcome: "dropped" or "converted".
        limit: largest number of rows, up to 10,000.
        after: `person_id` of the last row of the page before: only people who come after it.
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
    step = last if step is None else step
    check_whole_number("step", step, last)
    check_choice("outcome", outcome, get_args(Outcome))
    check_whole_number("limit", limit, MAX_ROWS, minimum=0)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=attempts.filters)
    bind = Parameters()
    condition = f"depth >= {step}" if outcome == "converted" else f"depth = {step - 1}"
    condition += "" if after is None else f" AND person_id > {bind(after)}"
    reached = f"coalesce({', '.join(f't{number}' for number in range(last, 0, -1))})"
    sql = f"""
        SELECT person_id, depth AS step, make_timestamptz(t1) AS began, make_timestamptz(reached) AS reached,
        (reached - t1) / 1e6 AS seconds
        FROM (SELECT *, {reached} AS reached FROM ({attempts.sql(scope, bind)})) WHERE {condition}
        ORDER BY person_id LIMIT {bind(limit)}
    """
    return await context.rows(sql, bind, scope, report="funnel_people")
