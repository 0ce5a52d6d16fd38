"""Funnel people: who they are that went on at a step of a funnel, or did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.context import ReportContext
from lakebed.reports.duration import Duration
from lakebed.reports.event_filter import EventLike
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Time

__all__ = ["funnel_people"]

Outcome = Literal["dropped", "converted"]

_MOST = 10_000


async def funnel_people(
    inquiry: ReportContext,
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
        steps: as for `funnel`, like all that is not said here.
        within: from the first step to the last, both included.
        step: 1 for the first, the last by default. At the first one nobody has dropped.
        outcome: "dropped" or "converted".
        limit: rows at most, up to 10,000.
        after: only people whose `person_id` comes after this one: the last of the page before.
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
    step = last if step is None else step
    check_limit("step", step, last)
    if outcome not in get_args(Outcome):
        raise QueryRefused(f"outcome is {str(outcome)[:40]!r}", hint=f"Use one of {', '.join(get_args(Outcome))}")
    check_limit("limit", limit, _MOST, least=0)
    scope = await inquiry.scope(
        start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=attempts.selections
    )
    bind = Parameters()
    wanted = f"depth >= {step}" if outcome == "converted" else f"depth = {step - 1}"
    wanted += "" if after is None else f" AND person_id > {bind(after)}"
    reached = f"coalesce({', '.join(f't{at}' for at in range(last, 0, -1))})"
    sql = f"""
        SELECT person_id, depth AS step, make_timestamptz(t1) AS began, make_timestamptz(reached) AS reached,
        (reached - t1) / 1e6 AS seconds
        FROM (SELECT *, {reached} AS reached FROM ({attempts.sql(scope, bind)})) WHERE {wanted}
        ORDER BY person_id LIMIT {bind(limit)}
    """
    return await inquiry.rows(sql, bind, scope, report="funnel_people")
