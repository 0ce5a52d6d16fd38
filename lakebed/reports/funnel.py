"""Funnel: how many people did these things one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.arguments import OTHER, Breakdown, Duration
from lakebed.reports.context import ReportContext
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.scope import EventLike, Parameters, Scope, Time

__all__ = ["funnel"]

_COLUMNS = ("step", "event", "people", "conversion", "from_previous", "median_seconds", "period")


async def funnel(
    context: ReportContext,
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
    """Rows `step, event, people, conversion, from_previous, median_seconds`: how many people reached each step.

    A person counts once, with the attempt that went furthest; of several, with the one that got there first. An attempt
    begins with an event of the first step in `[start, end)` and may go on after `end`, for as long as `within`. Each
    further step is the first later event that can be it, and later means a later timestamp.

    `conversion` is the share of those at the first step, `from_previous` of those at the step before, `median_seconds`
    the median time since the step before. Further columns come behind: `total` and `total_conversion` with `totals`,
    `period` with `compare`, and the one of `by`.

    Args:
        steps: list of 1 to 20, each a name, or `{"event": "B", "where": "plan = 'pro'"}`. The same twice needs two
            events.
        within: longest time from the first step to the last, both included.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        order: "ordered" lets other events lie between; "strict" lets no other named event of the person lie between;
            with "any" the steps may come in any order, and row k counts the people who did k of them.
        by: column or property to split by, with its value at the first event of the attempt.
        top: number of values of `by` that have rows of their own, by people at the first step; the rest is "(other)".
        exclude: events that end an attempt: a name, or `{"event": "X", "where": "…", "between": [1, 3]}`; without
            `between`, anywhere between the first and the last step, as always with "any".
        holding: column or property that has one value in all steps of an attempt, such as an order's number. Each of
            a person's values is tried by itself, and the one that got furthest counts. Events without one are no steps.
        allow_equal: whether events of one timestamp come one after the other, in the order in which they were received.
        totals: whether to count all attempts beside the people: `total`, those that reached the step, and
            `total_conversion`, their share of all entries. Not with `by`, nor with "any".
        compare: whether to add the rows of the period of the same length before `start`. Needs `start` and `end`.
        where: SQL condition over the columns of `events`; other events are ignored.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.

    Raises:
        QueryRefused: an argument is not valid, or does not go with another.
        QueryError: a condition is not valid SQL; with DuckDB's message.
    """
    attempts = FunnelAttempts.of(
        steps, within, order, exclude, holding, context.promotions, allow_equal=allow_equal, totals=totals
    )
    breakdown = Breakdown.of(by, top, context.promotions, _COLUMNS)
    if breakdown is not None and totals:
        hint = "Give the first step a where for each value: its entries alone are counted then"
        raise QueryRefused("totals do not go with by", hint=hint)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=attempts.filters)
    bind, periods = Parameters(), {"current": scope}
    if compare:
        periods["previous"] = scope.previous()
    value = None if breakdown is None else breakdown.value
    further = ["period"] if compare else []
    further += [] if breakdown is None else [breakdown.column]
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
        ) AS shown ORDER BY shown.period, shown._nth, shown._row.step
    """
    return await context.rows(sql, bind, scope, report="funnel")


def _tried(attempts: FunnelAttempts, periods: Mapping[str, Scope], value: str | None, bind: Parameters) -> str:
    """CTEs, the last of which is `tried`: a row for each person and period, with the value of the breakdown."""
    tables, selects = [], []
    for number, (period, scope) in enumerate(periods.items()):
        went = f"went_{number}"
        tables.append(f"{went} AS ({attempts.sql(scope, bind)})")
        if value is None:
            selects.append(f"SELECT {bind(period)} AS period, *, NULL::VARCHAR AS value FROM {went}")
        else:
            tables.append(f"began_{number} AS ({attempts.first_values(went, value, scope, bind)})")
            selects.append(f"SELECT {bind(period)} AS period, * FROM {went} JOIN began_{number} USING (person_id)")
    return ", ".join([*tables, f"tried AS ({' UNION ALL '.join(selects)})"])


def _ranked(value: str | None) -> str:
    """`value, nth` of all values, by people at the first step; a single row where there is no breakdown."""
    if value is None:
        return "SELECT NULL::VARCHAR AS value, 1 AS nth"
    order = "count(*) FILTER (period = 'current') DESC, count(*) DESC, value NULLS LAST"
    return f"SELECT value, row_number() OVER (ORDER BY {order}) AS nth FROM tried GROUP BY value"


def _counted(attempts: FunnelAttempts, top: str) -> str:
    """`period, nth` and the figures of every step: `people_1 …`, `median_2 …`, and with totals `total_1 …`."""
    steps = range(1, len(attempts.steps) + 1)
    counts = [f"count(*) FILTER (depth >= {step}) AS people_{step}" for step in steps]
    counts += [f"median(t{step} - t{step - 1}) / 1e6 AS median_{step}" for step in steps[1:]]
    if attempts.totals:
        counts += [f"CAST(sum(n{step}) AS BIGINT) AS total_{step}" for step in steps]
    return (
        f"SELECT period, least(nth, {top} + 1) AS nth, {', '.join(counts)} "
        "FROM tried JOIN ranked ON tried.value IS NOT DISTINCT FROM ranked.value GROUP BY 1, 2"
    )


def _rows(attempts: FunnelAttempts, bind: Parameters) -> str:
    """The rows of one period and value, as structs."""
    rows = []
    for number, step in enumerate(attempts.steps, 1):
        label = f"any {number} of {len(attempts.steps)}" if attempts.order == "any" else step.label
        median = "NULL::DOUBLE" if number == 1 else f"median_{number}"
        totals = f", 'total': coalesce(total_{number}, 0), 'total_conversion': total_{number} / nullif(total_1, 0)"
        rows.append(
            f"{{'step': {number}, 'event': {bind(label)}, 'people': coalesce(people_{number}, 0), "
            f"'conversion': people_{number} / nullif(people_1, 0), "
            f"'from_previous': people_{number} / nullif(people_{max(number - 1, 1)}, 0), "
            f"'median_seconds': {median}{totals if attempts.totals else ''}}}"
        )
    return ", ".join(rows)
