"""Segmentation: how often, by whom, how much: measures of events over time, split, compared and combined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lakebed.clock import HOUR_US, from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql, quoted
from lakebed.query.result import Result
from lakebed.reports.breakdown import OTHER
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.formula import LETTERS, formula_sql
from lakebed.reports.limits import check_limit
from lakebed.reports.measure import Measure
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Scope, Time

__all__ = ["segmentation"]

_TAKEN = ("time", "series", "value")
_MOST_TOP = 1_000


async def segmentation(
    inquiry: ReportContext,
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

    A period without events is a row, from that of `start`, or the first event, to that of `end`, or the last: with 0
    for counts and people, with NULL for the other measures. With a `formula` there is one series, named
    by it. Where nothing at all is found there are rows only without `by`, for a range from `start` to `end`. With
    `compare` a column `period` comes behind: "current", and then "previous", whose `time` is its own.

    Args:
        events: one or several; each is a series, A, B, C … in a formula. None is every event.
        measure: count, people, sum(x), avg(x), min(x), max(x), distinct(x) or quantile(x, 0.95) of each series. x is a
            column, a promoted one, or a property that is a number.
        by: columns or properties to split by, as text.
        top: so many combinations of `by`, those with the most events; the others are one, "(other)". With `compare`
            those of the current period decide, and both have the same.
        formula: numbers, letters, + - * / and parentheses. What is divided by 0 is NULL.
        grain: of the rows; None gives one value for all, without `time`.
        compare: give the rows of the period of the same length before `start`, too. Needs `start` and `end`.
        start: included; None is no bound, like `end`.
        end: excluded.
        where: SQL over the columns of `events`, for all series.
        cohort: only people of this saved cohort.
        tz: whose days, weeks and months, an IANA name.
        week_start: monday, sunday or saturday.
        as_of: only what was received up to then.
    """
    calendar = Calendar.of(tz, week_start, grain or "day")
    chosen = _chosen(events)
    check_limit("top", top, _MOST_TOP)
    names = _names(by, (*_TAKEN, "period") if compare else _TAKEN)
    measured = Measure.parse(measure, inquiry.promotions)
    values = [f"value_{at}" for at in range(len(chosen))]
    combined = None if formula is None else formula_sql(formula, values)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=chosen)
    periods = {"current": scope, "previous": scope.previous()} if compare else {"current": scope}
    read = scope.between(periods["previous"].start_us, scope.end_us) if compare else scope
    whole = not compare or (scope.start_us or 0) % HOUR_US == 0  # no hour lies in both
    bind = Parameters()
    plain = measured.sql == "count(*)" and names in ((), ("event",)) and grain != "minute" and whole
    counts = await inquiry.counts(read, bind) if plain and not any(one.where for one in chosen) else None
    if counts is not None and grain not in (None, "hour") and not calendar.has_whole_hours(*counts.span):
        counts, bind = None, Parameters()
    if counts is not None:
        source, counted, weight, condition = counts.source, "sum(weight)", "sum(weight)", "true"
    else:
        source, counted, weight, condition = "events", measured.sql, "count(*)", read.condition(bind)
    number = "0" if grain is None else calendar.number(grain, "timestamp")
    flags = [one.condition(bind) for one in chosen]
    split = [f"CAST({column_sql(name, inquiry.promotions)} AS VARCHAR)" for name in names]
    base = f"FROM {source} WHERE {condition} AND ({' OR '.join(f'({flag})' for flag in flags)})"
    keys = [f"key_{at}" for at in range(len(names))]
    period = f"{scope.period(bind)} AS period, " if compare else ""
    parts, columns = [], ""
    if names:
        most = [f"{weight} FILTER ({scope.period(bind)} = 'current') DESC NULLS LAST"] if compare else []
        parts = _best(split, keys, base, [*most, f"{weight} DESC"], bind(top))
        columns = _columns(split, keys, bind(OTHER))
    figures = ", ".join(
        f"{counted} FILTER (WHERE {flag}) AS {value}" for flag, value in zip(flags, values, strict=True)
    )
    parts.append(f"found AS (SELECT {number} AS n, {period}{columns}{figures} {base} GROUP BY ALL)")
    parts.append("seen AS (SELECT min(n) AS low, max(n) AS high FROM found)")
    spans = [f"SELECT {bind(name)} AS period, {_span(one, calendar, grain, bind)}" for name, one in periods.items()]
    parts.append(f"every AS ({' UNION ALL '.join(spans)})")
    parts.append(f"groups AS (SELECT DISTINCT {', '.join(keys)} FROM found)" if names else "groups AS (SELECT 1)")
    joined = ["every.n = found.n", *(["every.period = found.period"] if compare else [])]
    joined += [f"groups.{key} IS NOT DISTINCT FROM found.{key}" for key in keys]
    zero = [f"coalesce({value}, 0) AS {value}" if measured.counts else value for value in values]
    parts.append(
        f"filled AS (SELECT every.period, every.n{''.join(f', groups.{key}' for key in keys)}, {', '.join(zero)} "
        f"FROM every CROSS JOIN groups LEFT JOIN found ON {' AND '.join(joined)})"
    )
    time = "" if grain is None else f"{calendar.start(grain, 'n')} AS time, "
    labelled: Iterable[tuple[str | None, str]] = zip((one.label for one in chosen), values, strict=True)
    series = [
        f"SELECT {time}{bind(label)} AS series, {''.join(f'{key}, ' for key in keys)}{value} AS value, "
        f"period, n, {at} AS nth FROM filled"
        for at, (label, value) in enumerate(labelled if combined is None else [(formula, combined)])
    ]
    shown = ["series", *(f"{key} AS {quoted(name)}" for key, name in zip(keys, names, strict=True)), "value"]
    shown = [*([] if grain is None else ["time"]), *shown, *(["period"] if compare else [])]
    # Qualified, as one of `by` may be called like them.
    order = ["found.period", "found.n", "found.nth", *(f"found.{key} NULLS LAST" for key in keys)]
    sql = f"""
        WITH {", ".join(parts)}
        SELECT {", ".join(shown)} FROM ({" UNION ALL ".join(series)}) AS found ORDER BY {", ".join(order)}
    """
    return await inquiry.rows(sql, bind, scope, report="segmentation", tables=None if counts is None else counts.tables)


def _chosen(events: EventLike | Sequence[EventLike] | None) -> list[EventFilter]:
    given = list(events) if isinstance(events, Sequence) and not isinstance(events, str) else [events]
    if not 1 <= len(given) <= len(LETTERS):
        raise QueryRefused(f"{len(given)} events", hint=f"Give 1 to {len(LETTERS)}")
    return [EventFilter.of(one, "events") for one in given]


def _best(split: Sequence[str], keys: Sequence[str], base: str, most: Sequence[str], limit: str) -> list[str]:
    """The combinations that are shown under their own names."""
    columns = ", ".join(f"{sql} AS {key}" for sql, key in zip(split, keys, strict=True))
    order = ", ".join([*most, *(f"{key} NULLS LAST" for key in keys)])
    return [f"best AS (SELECT {columns} {base} GROUP BY ALL ORDER BY {order} LIMIT {limit})"]


def _columns(split: Sequence[str], keys: Sequence[str], other: str) -> str:
    # Lists, as they are equal where both have a NULL at one place.
    known = f"[{', '.join(split)}] IN (SELECT [{', '.join(keys)}] FROM best)"
    pairs = zip(split, keys, strict=True)
    return "".join(f"CASE WHEN {known} THEN {sql} ELSE {other} END AS {key}, " for sql, key in pairs)


def _names(by: str | Sequence[str] | None, taken: Sequence[str]) -> tuple[str, ...]:
    names = () if by is None else (by,) if isinstance(by, str) else tuple(by)
    lowered = [str(name).lower() for name in (*names, *taken)]
    if not all(isinstance(name, str) and name for name in names) or len(set(lowered)) < len(lowered):
        hint = f"Name columns or properties, each once; {', '.join(taken)} are taken"
        raise QueryRefused(f"by is {str(by)[:80]!r}", hint=hint)
    return names


def _span(scope: Scope, calendar: Calendar, grain: Grain | None, bind: Parameters) -> str:
    """SQL for `n` of all periods that are rows; of none, where neither events nor a range say which."""
    if grain is None:
        return "0 AS n"
    first = "low" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    last = "high" if scope.end_us is None else calendar.number(grain, bind(from_us(scope.end_us - 1)))
    nothing = "false" if scope.start_us is not None and scope.start_us == scope.end_us else "true"
    return f"unnest(generate_series({first}, {last})) AS n FROM seen WHERE {nothing}"
