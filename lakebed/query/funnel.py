"""Funnel: how many people did these things one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import QueryRefused
from lakebed.query.binder import Binder
from lakebed.query.duration import Duration, duration_us
from lakebed.query.inquiry import Inquiry
from lakebed.query.result import Result
from lakebed.query.scope import Time
from lakebed.query.selection import EventLike, Selection

__all__ = ["funnel"]

_MOST_STEPS = 20


async def funnel(
    inquiry: Inquiry,
    steps: Sequence[EventLike],
    within: Duration = "7d",
    *,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `step, event, people, conversion, from_previous, median_seconds`: who went how far, in order.

    Args:
        steps: in order; each a name, or `{"event": "B", "where": "plan = 'pro'"}`.
        within: from the first step to the last.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`, for all steps.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.
    """
    chosen = [Selection.of(step, f"step {at}") for at, step in enumerate(steps, 1)]
    if not 1 <= len(chosen) <= _MOST_STEPS:
        raise QueryRefused(f"a funnel of {len(chosen)} steps", hint=f"Give 1 to {_MOST_STEPS}")
    window = duration_us("within", within)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=chosen)
    bind = Binder()
    flags = ", ".join(f"({step.condition(bind)}) AS is_{at}" for at, step in enumerate(chosen, 1))
    # Of the entries that led here, the latest: what it cannot reach within the window, no earlier one can.
    chains = f"SELECT person_id, us, {', '.join(f'is_{n}' for n in range(1, len(chosen) + 1))}, "
    chains += "CASE WHEN is_1 THEN us END AS entry_1 FROM marked"
    for at in range(2, len(chosen) + 1):
        before = (
            f"max(entry_{at - 1}) OVER (PARTITION BY person_id ORDER BY us "
            "RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        )
        entry = f"CASE WHEN is_{at} AND us - {before} <= {bind(window)} THEN {before} END"
        chains = f"SELECT *, {entry} AS entry_{at} FROM ({chains})"
    reached = ", ".join(
        f"count(DISTINCT person_id) FILTER (entry_{at} IS NOT NULL) AS people_{at}" for at in range(1, len(chosen) + 1)
    )
    rows = " UNION ALL ".join(
        f"SELECT {at} AS step, {bind(step.label)} AS event, people_{at} AS people, "
        f"people_{at} / people_1 AS conversion, people_{at} / people_{max(at - 1, 1)} AS from_previous, "
        "NULL::DOUBLE AS median_seconds FROM counted"
        for at, step in enumerate(chosen, 1)
    )
    sql = f"""
        WITH marked AS (
            SELECT person_id, epoch_us(timestamp) AS us, {flags} FROM events
            WHERE person_id IS NOT NULL AND {scope.condition(bind)}
        ), counted AS (SELECT {reached} FROM ({chains}))
        SELECT * FROM ({rows}) ORDER BY step
    """
    return await inquiry.rows(sql, bind, scope, report="funnel")
