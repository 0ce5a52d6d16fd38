"""Daily people: `lifecycle` and `stickiness` over all events, computed from a bitmap of people for each day.

The bitmaps are those of the rollup of days, of people as they are now, after all merges: they hold exactly the people
that the events have. A report of all events by days of UTC, or by the weeks and months made of them, reads no event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakebed.clock import DAY_US
from lakebed.query.result import Result
from lakebed.reports.calendar import Calendar, Grain
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["lifecycle_by_day", "stickiness_by_day"]

Days = Iterable[tuple[int, Any]]

_MAX_NUMBER = 20_000_000  # of a person in a bitmap; counting takes two bytes for each
_STATES = ("new", "returning", "resurrecting", "dormant")


async def lifecycle_by_day(context: ReportContext, scope: Scope, calendar: Calendar, grain: Grain) -> Result | None:
    """The result of `lifecycle` over all events of `scope`; None where the bitmaps cannot tell."""
    if not _has_whole_days(calendar, grain):
        return None
    first = None if scope.start_us is None else calendar.number_of(grain, scope.start_us // DAY_US)
    last = calendar.number_of(grain, context.last_us(scope) // DAY_US)
    compute = partial(_lifecycle, calendar=calendar, grain=grain, first=first, last=last)
    return await context.daily_people(scope.between(None, scope.end_us), compute, report="lifecycle")


async def stickiness_by_day(
    context: ReportContext, scope: Scope, calendar: Calendar, grain: Grain, interval: Grain | None
) -> Result | None:
    """The result of `stickiness` over all events of `scope`; None where the bitmaps cannot tell."""
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
    """Rows from the period `first` (None: the first with people) to `last`, or to the last with people. Blocks."""
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
    """`rows` rows for each interval (None: up to the most periods of a person). None: counting takes too much memory.

    Blocks.
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
    """How many people are in none, in one, in two … of the bitmaps. None where a person's number is too high."""
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
