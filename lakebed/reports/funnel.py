"""Funnel: how many people did these things one after the other, who they are, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from lakebed.clock import DAY_S, HOUR_S, MINUTE_S
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.arguments import MAX_ROWS, OTHER, Breakdown, Duration, check_choice, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.funnel_attempts import FunnelAttempts, Order
from lakebed.reports.scope import EventLike, Parameters, Scope, Time

__all__ = ["funnel", "funnel_people", "funnel_times"]

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

    A person counts once, with the attempt that reached the furthest step; of several, with the one that reached it
    first. An attempt begins with an event of the first step in `[start, end)` and may go on after `end`, for as long as
    `within`. Each further step is the first later event that fits; later means a later timestamp.

    `conversion` is `people` as a fraction of the people at the first step, `from_previous` of those at the step before.
    `median_seconds` is the median time since the step before. More columns follow: `total` and `total_conversion` with
    `totals`, `period` with `compare`, and the column of `by`.

    Args:
        steps: list of 1 to 20, each a name, or `{"event": "B", "where": "plan = 'pro'"}`. A step that is listed twice
            needs two events.
        within: longest time from the first step to the last, both included.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        order: "ordered" allows other events between the steps; "strict" allows no other named event of the person
            there; with "any" the steps may come in any order, and row k counts the people who did k of them.
        by: column or property to split by: its value in the first event of the attempt.
        top: number of values of `by` with rows of their own, those with most people at step 1; the rest is "(other)".
        exclude: events that end an attempt: a name, or `{"event": "X", "where": "…", "between": [1, 3]}`; without
            `between`, events between the first and the last step. Order "any" allows no other.
        holding: column or property that has one value in all steps of an attempt, such as an order's number. Each value
            of a person has its own attempts, and the value that got furthest counts. Events without one are ignored.
        allow_equal: whether events of one timestamp may follow each other, in the order in which they were received.
        totals: whether to also count attempts: `total` is the number of attempts that reached the step,
            `total_conversion` its fraction of all attempts. Does not go with `by`, nor with order "any".
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
        hint = "Leave `by` out, or call once for each value, with a `where` on the first step"
        raise QueryRefused("`totals` and `by` cannot be combined", hint=hint)
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
    """CTEs. The last is `tried`: a row for each person and period, with the person's value of the breakdown."""
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
    """SQL for `value, nth`: all values, ranked by people at the first step; without a breakdown, a single row."""
    if value is None:
        return "SELECT NULL::VARCHAR AS value, 1 AS nth"
    order = "count(*) FILTER (period = 'current') DESC, count(*) DESC, value NULLS LAST"
    return f"SELECT value, row_number() OVER (ORDER BY {order}) AS nth FROM tried GROUP BY value"


def _counted(attempts: FunnelAttempts, top: str) -> str:
    """SQL for `period, nth` and the figures of every step: `people_1 …`, `median_2 …`, with totals `total_1 …`."""
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
    """SQL for the result's rows of one period and value, as structs."""
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
    """Rows `person_id, step, began, reached, seconds` of the people behind a number in `funnel`, by `person_id`.

    "dropped" at step 3 are the people who reached step 2 and not step 3; "converted" at step 3 are those who reached
    it. Their number is that in `funnel` with the same arguments. `step` is the furthest step that the person reached,
    `began` and `reached` are the times of the first step and of `step`, `seconds` is the time between the two.

    Args:
        steps: steps as for `funnel`. Arguments that are explained only in part are as for `funnel`, too.
        within: longest time from the first step to the last, both included.
        step: number of a step, 1 for the first; by default the last. For step 1, "dropped" has no rows.
        outcome: "dropped" or "converted".
        limit: largest number of rows, up to 10,000.
        after: `person_id` of the last row of the page before: only people who come after it.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        order: "ordered", "strict" or "any".
        exclude: events that end an attempt.
        holding: column or property that has one value in all steps.
        allow_equal: whether events of one timestamp may follow each other, in the order in which they were received.
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


_MAX_BINS = 200
_WIDTHS_S = (
    *(0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30),
    *(number * MINUTE_S for number in (1, 2, 5, 10, 15, 30)),
    *(number * HOUR_S for number in (1, 2, 3, 6, 12)),
    *(number * DAY_S for number in (1, 2, 7, 14, 28, 91, 364, 3640, 36_400)),
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

    The people who reached `to_step` are counted, each with the attempt that counts in `funnel`. A bin includes its
    start and not its end; empty bins in between are rows, too. The width is round, such as a second, a minute or a day.

    Args:
        steps: steps as for `funnel`. Arguments that are explained only in part are as for `funnel`, too.
        within: longest time from the first step to the last, both included.
        from_step: number of a step, 1 for the first.
        to_step: number of a later step; by default the last.
        bins: largest number of rows, up to 200; decides the width of a bin.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        order: "ordered", "strict" or "any".
        exclude: events that end an attempt.
        holding: column or property that has one value in all steps.
        allow_equal: whether events of one timestamp may follow each other, in the order in which they were received.
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
        raise QueryRefused(f"`from_step` {from_step} is not before `to_step` {to_step}", hint="Give steps in order")
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
