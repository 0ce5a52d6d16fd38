"""Funnel: how many people did these things one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.breakdown import OTHER, Breakdown
from lakebed.reports.context import ReportContext
from lakebed.reports.duration import Duration
from lakebed.reports.event_filter import EventLike
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Scope, Time

__all__ = ["funnel"]

_OWN = ("step", "event", "people", "conversion", "from_previous", "median_seconds", "period")


async def funnel(
    inquiry: ReportContext,
    steps: Sequence[EventLike],
    within: Duration = "7d",
    *,
    start: Time | None = None,
    end: Time | None = None,
    order: Order = "ordered",
    by: str | None = None,
    top: int = 10,
    exclude: Sequence[EventLike] | None = None,
    holding: str | None = None,
    allow_equal: bool = False,
    totals: bool = False,
    compare: bool = False,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `step, event, people, conversion, from_previous, median_seconds`: who went how far.

    A person counts once, with the attempt that went furthest; of several, with the one that got there first. An attempt
    begins with an event of the first step in `[start, end)` and may go on after `end`, for as long as `within`. Each
    further step is the first later event that can be it, and later means a later timestamp.

    `conversion` is the share of those at the first step, `from_previous` of those at the step before, `median_seconds`
    the median time since the step before. Further columns come behind: `total` and `total_conversion` with `totals`,
    `period` with `compare`, and the one of `by`.

    Args:
        steps: 1 to 20, each a name, or `{"event": "B", "where": "plan = 'pro'"}`. The same twice needs two events.
        within: from the first step to the last, both included.
        start: included; None is no bound, like `end`.
        end: excluded.
        order: "ordered" lets other events lie between; "strict" lets no other named event of the person lie between;
            with "any" the steps may come in any order, and row k is who did k of them.
        by: a column or a property to split by, with its value at the first event of the attempt.
        top: how many values of `by` have rows of their own, by people at the first step; the rest is "(other)".
        exclude: events that end an attempt: a name, or `{"event": "X", "where": "…", "between": [1, 3]}`; without
            `between`, anywhere between the first and the last step, as always with "any".
        holding: a column or property that has one value in all steps of an attempt, such as an order's number. Each of
            a person's values is tried by itself, and the one that got furthest counts. Events without one are no steps.
        allow_equal: events of one timestamp come one after the other, in the order in which they were received.
        totals: count all attempts beside the people: `total`, those that reached the step, and `total_conversion`,
            their share of all entries. Not with `by`, nor with "any".
        compare: give the rows of the period of the same length before `start`, too. Needs `start` and `end`.
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
        totals=totals,
    )
    split = Breakdown.of(by, top, inquiry.promotions, _OWN)
    if split is not None and totals:
        hint = "Give the first step a where for each value: its entries alone are counted then"
        raise QueryRefused("totals do not go with by", hint=hint)
    scope = await inquiry.scope(
        start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=attempts.selections
    )
    bind, periods = Parameters(), {"current": scope}
    if compare:
        periods["previous"] = scope.previous()
    value = None if split is None else split.value
    further = ["period"] if compare else []
    further += [] if split is None else [split.column]
    sql = f"""
        WITH {_tried(attempts, periods, value, bind)},
        ranked AS ({_ranked(value)}),
        counted AS ({_counted(attempts, bind(top))})
        SELECT {", ".join(["_row.*", *further])} FROM (
            SELECT period, nth AS _nth, value, unnest([{_rows(attempts, bind)}]) AS _row
            FROM (SELECT unnest([{", ".join(map(bind, periods))}]) AS period)
            CROSS JOIN (
                SELECT least(nth, {bind(top + 1)}) AS nth,
                min(CASE WHEN nth > {bind(top)} THEN {bind(OTHER)} ELSE value END) AS value FROM ranked GROUP BY 1
            ) LEFT JOIN counted USING (period, nth)
        ) AS found ORDER BY found.period, found._nth, found._row.step
    """
    return await inquiry.rows(sql, bind, scope, report="funnel")


def _tried(attempts: FunnelAttempts, periods: Mapping[str, Scope], value: str | None, bind: Parameters) -> str:
    """CTEs, of which the last is `tried`: a row a person and period, with the value that it is split by."""
    tables, selects = [], []
    for at, (period, scope) in enumerate(periods.items()):
        tables.append(f"went_{at} AS ({attempts.sql(scope, bind)})")
        if value is None:
            selects.append(f"SELECT {bind(period)} AS period, *, NULL::VARCHAR AS value FROM went_{at}")
        else:
            tables.append(f"began_{at} AS ({attempts.beginnings(f'went_{at}', value, scope, bind)})")
            selects.append(f"SELECT {bind(period)} AS period, * FROM went_{at} JOIN began_{at} USING (person_id)")
    return ", ".join([*tables, f"tried AS ({' UNION ALL '.join(selects)})"])


def _ranked(value: str | None) -> str:
    """`value, nth` of all values, by people at the first step; a single row if there is nothing to split by."""
    if value is None:
        return "SELECT NULL::VARCHAR AS value, 1 AS nth"
    order = "count(*) FILTER (period = 'current') DESC, count(*) DESC, value NULLS LAST"
    return f"SELECT value, row_number() OVER (ORDER BY {order}) AS nth FROM tried GROUP BY value"


def _counted(attempts: FunnelAttempts, top: str) -> str:
    counts = [f"count(*) FILTER (depth >= {at}) AS people_{at}" for at in range(1, len(attempts.steps) + 1)]
    counts += [f"median(t{at} - t{at - 1}) / 1e6 AS median_{at}" for at in range(2, len(attempts.steps) + 1)]
    if attempts.totals:
        counts += [f"CAST(sum(n{at}) AS BIGINT) AS total_{at}" for at in range(1, len(attempts.steps) + 1)]
    return (
        f"SELECT period, least(nth, {top} + 1) AS nth, {', '.join(counts)} "
        "FROM tried JOIN ranked ON tried.value IS NOT DISTINCT FROM ranked.value GROUP BY 1, 2"
    )


def _rows(attempts: FunnelAttempts, bind: Parameters) -> str:
    """The rows of one period and value, as structs."""
    totals = ", 'total': coalesce(total_{at}, 0), 'total_conversion': total_{at} / nullif(total_1, 0)"
    totals = totals if attempts.totals else ""
    rows = []
    for at, step in enumerate(attempts.steps, 1):
        label = f"any {at} of {len(attempts.steps)}" if attempts.order == "any" else step.label
        rows.append(
            f"{{'step': {at}, 'event': {bind(label)}, 'people': coalesce(people_{at}, 0), "
            f"'conversion': people_{at} / nullif(people_1, 0), "
            f"'from_previous': people_{at} / nullif(people_{max(at - 1, 1)}, 0), "
            f"'median_seconds': {'NULL::DOUBLE' if at == 1 else f'median_{at}'}{totals.format(at=at)}}}"
        )
    return ", ".join(rows)
