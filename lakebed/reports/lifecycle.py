"""Lifecycle: how many people in each period are new, returning, resurrecting or dormant.

`lifecycle` and `stickiness` over all events are computed from a bitmap of people for each day. The bitmaps come from
the daily rollup and hold people as they are now, after all merges: exactly the people that the events have. A
report of all events by days of UTC, or by the weeks and months made of them, reads no event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakebed.clock import DAY_US, from_us
from lakebed.query.result import Result
from lakebed.reports.arguments import Breakdown
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Scope, Time, with_tables

__all__ = ["lifecycle", "stickiness_by_day"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Days = Iterable[tuple[int, Any]]

_MAX_NUMBER = 20_000_000  # highest number of a person in a bitmap; counting takes two bytes for each number
_STATES = ("new", "returning", "resurrecting", "dormant")


async def lifecycle_by_day(context: ReportContext, scope: Scope, calendar: Calendar, grain: Grain) -> Result | None:
    """The result of `lifecycle` over all events of `scope`. Returns None if the bitmaps cannot answer."""
    if not _has_whole_days(calendar, grain):
        return None
    first = None if scope.start_us is None else calendar.number_of(grain, scope.start_us // DAY_US)
    last = calendar.number_of(grain, context.last_us(scope) // DAY_US)
    compute = partial(_lifecycle, calendar=calendar, grain=grain, first=first, last=last)
    return await context.daily_people(scope.between(None, scope.end_us), compute, report="lifecycle")


async def stickiness_by_day(
    context: ReportContext, scope: Scope, calendar: Calendar, grain: Grain, interval: Grain | None
) -> Result | None:
    """The result of `stickiness` over all events of `scope`. Returns None if the bitmaps cannot answer."""
    if not _has_whole_days(calendar, grain):
        return None
    rows, start_us, end_us = None, scope.start_us, scope.end_us
    if interval is None and start_us is not None and end_us is not None and start_us < end_us:
        first, last = (calendar.number_of(grain, us // DAY_US) for us in (start_us, end_us - 1))
        rows = last - first + 1
    compute = partial(_stickiness, calendar=calendar, grain=grain, interval=interval, rows=rows)
    return await context.daily_people(scope, compute, report="stickiness")


def _has_whole_days(calendar: Calendar, grain: Grain) -> bool:
    """Whether the periods are made of whole days of UTC."""
    return calendar.tz == "UTC" and grain in ("day", "week", "month")


def _lifecycle(days: Days, calendar: Calendar, grain: Grain, first: int | None, last: int) -> pa.Table:
    """Rows from period `first` (None: the first with people) to `last`, or the last with people if later. Blocks."""
    from pyroaring import BitMap  # only objects that run reports pay for the import

    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    ever, before, latest = BitMap(), BitMap(), None
    for number, people in _periods(days, calendar, grain):
        if latest is not None and number > latest + 1:
            counts[latest + 1][3] = len(before)
            before = BitMap()
        new, returning = people.difference_cardinality(ever), people.intersection_cardinality(before)
        counts[number] = [new, returning, len(people) - new - returning, len(before) - returning]
        ever, before, latest = ever | people, people, number
    if latest is None:
        return _table([], _STATES, [])
    counts[latest + 1][3] = len(before)
    shown = range(min(counts) if first is None else first, max(latest, last) + 1)
    starts = [calendar.day_of(grain, number) for number in shown]
    return _table(starts, _STATES, [counts[number] for number in shown])


def _stickiness(
    days: Days, calendar: Calendar, grain: Grain, interval: Grain | None, rows: int | None
) -> pa.Table | None:
    """Rows 1 to `rows` for each interval; if `rows` is None, up to the most periods of one person. Blocks.

    Returns None if counting takes too much memory.
    """
    starts: list[int] = []
    table: list[tuple[Any, ...]] = []

    def interval_of(day: tuple[int, Any]) -> int:
        return 0 if interval is None else calendar.number_of(interval, day[0])

    for number, interval_days in groupby(days, interval_of):
        counts = _counts(people for _, people in _periods(interval_days, calendar, grain))
        if counts is None:
            return None
        if rows is not None and len(counts) <= rows:  # counts[0] is of people who came in no period
            counts += [0] * (rows + 1 - len(counts))
        if total := sum(counts[1:]):
            at_least = total
            for periods, people in enumerate(counts[1:], 1):
                table.append((periods, people, people / total, at_least))
                at_least -= people
            starts += [] if interval is None else [calendar.day_of(interval, number)] * (len(counts) - 1)
    return _table(None if interval is None else starts, ("periods", "people", "share", "at_least"), table)


def _periods(days: Days, calendar: Calendar, grain: Grain) -> Iterator[tuple[int, Any]]:
    """The number and the people of each period that has people."""
    from pyroaring import BitMap  # only objects that run reports pay for the import

    for number, period_days in groupby(days, lambda day: calendar.number_of(grain, day[0])):
        people = BitMap.union(*(bitmap for _, bitmap in period_days))
        if people:
            yield number, people


def _counts(periods: Iterable[Any]) -> list[int] | None:
    """How many people are in none, in one, in two … of the bitmaps. Returns None if a person's number is too high."""
    import numpy as np  # only objects that run reports pay for the import

    times: NDArray[np.uint16] = np.zeros(0, np.uint16)
    for people in periods:
        numbers: NDArray[np.uint32] = np.frombuffer(people.to_array(), np.uint32)
        highest = int(numbers[-1])
        if highest > _MAX_NUMBER:
            return None
        if highest >= len(times):
            times = np.concatenate([times, np.zeros(highest + 1 - len(times), np.uint16)])
        times[numbers] += 1
    counts: list[int] = np.bincount(times).tolist()
    return counts


def _table(starts: Sequence[int] | None, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """A table of `rows`, with the day on which each row's period starts as a column `time` in front, if given."""
    kinds = [pa.float64() if name == "share" else pa.int64() for name in names]
    columns = [pa.array([row[position] for row in rows], kind) for position, kind in enumerate(kinds)]
    if starts is None:
        return pa.table(columns, names=names)
    return pa.table([pa.array(starts, pa.int32()).cast(pa.date32()), *columns], names=["time", *names])


_GRAINS = ("hour", "day", "week", "month")
_COLUMNS = ("time", "new", "returning", "resurrecting", "dormant")


async def lifecycle(
    context: ReportContext,
    event: EventLike | None = None,
    *,
    grain: Grain = "week",
    by: str | None = None,
    top: int = 10,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, new, returning, resurrecting, dormant`: numbers of people in each period, by their earlier events.

    new: people whose first event ever lies in the period. returning: people who were there in the period before, too.
    resurrecting: people who are back after at least one period without events. dormant: people of the period before who
    have no event in this one; a positive number. `new + returning + resurrecting` are the people of the period. There
    is a row for every period from that of `start`, or the first event, to that of the last event counted or of now (or
    `as_of`, or `end`). With `by` each value has a row for every period and is in the last column; values with most
    people come first. A person has one value in each period, so the values add up to the whole.

    Args:
        event: event that counts; by default any event.
        grain: length of a period: hour, day, week or month.
        by: column or property to split by: its value in the person's first event of the period; for dormant people, of
            the period before.
        top: number of values of `by` with rows of their own, by people in the periods shown; the rest is "(other)".
        start: moment in the first period shown, which counts whole; earlier events decide who is new. None is no bound.
        end: end of the events that are read, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain, _GRAINS)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    breakdown = Breakdown.of(by, top, context.promotions, _COLUMNS)
    if breakdown is None and selection == EventFilter():
        result = await lifecycle_by_day(context, scope, calendar, grain)
        if result is not None:
            return result
    bind = Parameters()
    number = calendar.number(grain, "timestamp")
    last = calendar.number(grain, bind(from_us(context.last_us(scope))))
    first = "min(n)" if scope.start_us is None else calendar.number(grain, bind(from_us(scope.start_us)))
    columns, key, next_key = ["person_id", f"{number} AS n"], "n", "n + 1"
    if breakdown is not None:
        columns.append(f"{breakdown.first(selection.condition(bind))} AS value")
        key, next_key = "value, n", "value, n + 1"
    tables = {
        "seen": f"""
            SELECT {", ".join(columns)} FROM events
            WHERE person_id IS NOT NULL AND {selection.condition(bind)}
            AND {scope.between(None, scope.end_us).condition(bind)} GROUP BY ALL""",
        "neighbours": f"""
            SELECT {key}, lag(n) OVER own AS before, lead(n) OVER own AS after FROM seen
            WINDOW own AS (PARTITION BY person_id ORDER BY n)""",
        "changes": f"""
            SELECT {key}, count(*) FILTER (before IS NULL) AS fresh, count(*) FILTER (before = n - 1) AS kept,
                count(*) FILTER (before < n - 1) AS back, 0 AS away FROM neighbours GROUP BY {key} UNION ALL
            SELECT {next_key}, 0, 0, 0, count(*) FROM neighbours WHERE after IS NULL OR after > n + 1 GROUP BY {key}""",
        "every": f"""
            SELECT unnest(generate_series({first}, greatest(max(n), {last}))) AS n FROM seen HAVING count(*) > 0""",
    }
    changes, rows, row_key, column = "changes", "every", "n", ""
    if breakdown is not None:
        tables |= breakdown.ranked("(FROM changes SEMI JOIN every USING (n))", "sum(fresh + kept + back)", bind)
        tables["ranked_changes"] = "FROM changes JOIN ranked ON changes.value IS NOT DISTINCT FROM ranked.value"
        tables["named_periods"] = "FROM named CROSS JOIN every"
        changes, rows, row_key, column = "ranked_changes", "named_periods", "nth, n", f", {breakdown.column}"
    tables["states"] = f"""
        SELECT {row_key}, sum(fresh) AS fresh, sum(kept) AS kept, sum(back) AS back, sum(away) AS away
        FROM {changes} GROUP BY {row_key}"""
    order = "shown.n" if breakdown is None else "shown.nth, shown.n"  # qualified: the column of `by` may be called so
    select = f"""
        SELECT {calendar.start(grain, "n")} AS time, CAST(coalesce(fresh, 0) AS BIGINT) AS "new",
            CAST(coalesce(kept, 0) AS BIGINT) AS "returning", CAST(coalesce(back, 0) AS BIGINT) AS resurrecting,
            CAST(coalesce(away, 0) AS BIGINT) AS dormant{column}
        FROM {rows} AS shown LEFT JOIN states USING ({row_key}) ORDER BY {order}"""
    return await context.rows(with_tables(tables, select), bind, scope, report="lifecycle")
