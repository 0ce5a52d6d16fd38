"""Segmentation: measures of events over time, split, compared and combined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lakebed.clock import HOUR_US, from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql, quoted
from lakebed.query.result import Result
from lakebed.reports.arguments import OTHER, check_whole_number
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.measure import LETTERS, Measure, formula_sql
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Scope, Time

__all__ = ["segmentation"]

_COLUMNS = ("time", "series", "value")
_MAX_TOP = 1_000


async def segmentation(
    context: ReportContext,
    events: EventLike | Sequence[EventLike] | None = None,
    *,
    measure: str = "count",
    by: str | Sequence[str] | None = None,
    top: int = 10,
    formula: str | None = None,
    grain: Grain | None = "day",
    compare: bool = False,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, series, value` and the columns of `by`: a measure of one or several kinds of events.

    Every period has a row, from that of `start`, or the first event, to that of `end`, or the last event. Without
    events its value is 0 for counts and people, and NULL for other measures. With a `formula` there is one series,
    named by it. If there are no events at all, rows exist only without `by`, and for a range from `start` to `end`.
    With `compare` the last column is `period`: first "current", then "previous", which has its own times.

    Args:
        events: one event or a list. Each is a series, called A, B, C … in a formula. None is every event.
        measure: measure of each series: count, people, sum(x), avg(x), min(x), max(x), distinct(x) or
            quantile(x, 0.95). x is a column, a promoted one, or a property that is a number.
        by: columns or properties to split by, as text.
        top: number of combinations of `by` with rows of their own, those of most events; the rest is "(other)". With
            `compare` the events of the current period decide for both periods.
        formula: arithmetic of numbers, letters, + - * / and parentheses. A division by 0 is NULL.
        grain: length of a period; None gives one value for the whole range, without `time`.
        compare: whether to add the rows of the period of the same length before `start`. Needs `start` and `end`.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`, for all series.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain or "day")
    selections = _selections(events)
    check_whole_number("top", top, _MAX_TOP)
    names = _names(by, (*_COLUMNS, "period") if compare else _COLUMNS)
    measured = Measure.parse(measure, context.promotions)
    values = [f"value_{number}" for number in range(len(selections))]
    combined = None if formula is None else formula_sql(formula, values)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=selections)
    periods = {"current": scope, "previous": scope.previous()} if compare else {"current": scope}
    read = scope.between(periods["previous"].start_us, scope.end_us) if compare else scope
    splits_at_hour = not compare or (scope.start_us or 0) % HOUR_US == 0  # no hour lies in both periods
    bind = Parameters()
    plain = measured.sql == "count(*)" and names in ((), ("event",)) and grain != "minute" and splits_at_hour
    plain = plain and not any(selection.where for selection in selections)
    counts = await context.counts(read, bind) if plain else None
    if counts is not None and grain not in (None, "hour") and not calendar.has_whole_hours(*counts.span):
        counts, bind = None, Parameters()
    if counts is not None:
        source, counted, weight, condition = counts.source, "sum(weight)", "sum(weight)", "true"
    else:
        source, counted, weight, condition = "events", measured.sql, "count(*)", read.condition(bind)
    number = "0" if grain is None else calendar.number(grain, "timestamp")
    flags = [selection.condition(bind) for selection in selections]
    split = [f"CAST({column_sql(name, context.promotions)} AS VARCHAR)" for name in names]
    base = f"FROM {source} WHERE {condition} AND ({' OR '.join(f'({flag})' for flag in flags)})"
    keys = [f"key_{number}" for number in range(len(names))]
    period = f"{scope.period(bind)} AS period, " if compare else ""
    parts, columns = [], ""
    if names:
        order = [f"{weight} FILTER ({scope.period(bind)} = 'current') DESC NULLS LAST"] if compare else []
        parts = _best(split, keys, base, [*order, f"{weight} DESC"], bind(top))
        columns = _columns(split, keys, bind(OTHER))
    figures = ", ".join(
        f"{counted} FILTER (WHERE {flag}) AS {value}" for flag, value in zip(flags, values, strict=True)
    )
    parts.append(f"counted AS (SELECT {number} AS n, {period}{columns}{figures} {base} GROUP BY ALL)")
    parts.append("seen AS (SELECT min(n) AS low, max(n) AS high FROM counted)")
    spans = [
        f"SELECT {bind(name)} AS period, {_span(period_scope, calendar, grain, bind)}"
        for name, period_scope in periods.items()
    ]
    parts.append(f"every AS ({' UNION ALL '.join(spans)})")
    parts.append(f"groups AS (SELECT DISTINCT {', '.join(keys)} FROM counted)" if names else "groups AS (SELECT 1)")
    joined = ["every.n = counted.n", *(["every.period = counted.period"] if compare else [])]
    joined += [f"groups.{key} IS NOT DISTINCT FROM counted.{key}" for key in keys]
    zero = [f"coalesce({value}, 0) AS {value}" if measured.counts else value for value in values]
    parts.append(
        f"filled AS (SELECT every.period, every.n{''.join(f', groups.{key}' for key in keys)}, {', '.join(zero)} "
        f"FROM every CROSS JOIN groups LEFT JOIN counted ON {' AND '.join(joined)})"
    )
    time = "" if grain is None else f"{calendar.start(grain, 'n')} AS time, "
    labelled: Iterable[tuple[str | None, str]] = zip((selection.label for selection in selections), values, strict=True)
    series = [
        f"SELECT {time}{bind(label)} AS series, {''.join(f'{key}, ' for key in keys)}{value} AS value, "
        f"period, n, {nth} AS nth FROM filled"
        for nth, (label, value) in enumerate(labelled if combined is None else [(formula, combined)])
    ]
    shown = ["series", *(f"{key} AS {quoted(name)}" for key, name in zip(keys, names, strict=True)), "value"]
    shown = [*([] if grain is None else ["time"]), *shown, *(["period"] if compare else [])]
    # Names are qualified, because a column of `by` may have the same name.
    order = ["shown.period", "shown.n", "shown.nth", *(f"shown.{key} NULLS LAST" for key in keys)]
    sql = f"""
        WITH {", ".join(parts)}
        SELECT {", ".join(shown)} FROM ({" UNION ALL ".join(series)}) AS shown ORDER BY {", ".join(order)}
    """
    return await context.rows(sql, bind, scope, report="segmentation", tables=None if counts is None else counts.tables)


def _selections(events: EventLike | Sequence[EventLike] | None) -> list[EventFilter]:
    values = list(events) if isinstance(events, Sequence) and not isinstance(events, str) else [events]
    if not 1 <= len(values) <= len(LETTERS):
        raise QueryRefused(f"{len(values)} events were given", hint=f"Give 1 to {len(LETTERS)}")
    return [EventFilter.of(value, "events") for value in values]


def _best(split: Sequence[str], keys: Sequence[str], base: str, ranking: Sequence[str], limit: str) -> list[str]:
    """SQL of the table `best`: the combinations of values that have rows of their own."""
    columns = ", ".join(f"{sql} AS {key}" for sql, key in zip(split, keys, strict=True))
    order = ", ".join([*ranking, *(f"{key} NULLS LAST" for key in keys)])
    return [f"best AS (SELECT {columns} {base} GROUP BY ALL ORDER BY {order} LIMIT {limit})"]


def _columns(split: Sequence[str], keys: Sequence[str], other: str) -> str:
    # Compares lists: two lists are equal even if both have a NULL at the same place.
    is_best = f"[{', '.join(split)}] IN (SELECT [{', '.join(keys)}] FROM best)"
    pairs = zip(split, keys, strict=True)
    return "".join(f"CASE WHEN {is_best} THEN {sql} ELSE {other} END AS {key}, " for sql, key in pairs)


def _names(by: str | Sequence[str] | None, taken: Sequence[str]) -> tuple[str, ...]:
    names = () if by is None else (by,) if isinstance(by, str) else tuple(by)
    lowered = [str(name).lower() for name in (*names, *taken)]
    if not all(isinstance(name, str) and name for name in names) or len(set(lowered)) < len(lowered):
        hint = f"Name columns or properties, each once; {', '.join(taken)} are taken"
        raise QueryRefused(f"`by` is {str(by)[:80]!r}", hint=hint)
    return names


def _span(scope: Scope, calendar: Calendar, grain: Grain | None, bind: Parameters) -> str:
    """SQL for the number `n` of each period that has rows. Gives no row if the range has no bounds and no events."""
    if grain is None:
        return "0 AS n"
    first = "low" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    last = "high" if scope.end_us is None else calendar.number(grain, bind(from_us(scope.end_us - 1)))
    is_open = "false" if scope.start_us is not None and scope.start_us == scope.end_us else "true"
    return f"unnest(generate_series({first}, {last})) AS n FROM seen WHERE {is_open}"
