"""Presence: who was there in which period, by a bitmap of people for each day.

The bitmaps are those of the rollup of days, of people as they are now, after all merges: they know exactly what events
know. A report of all events by days of UTC, or by the weeks and months that are made of them, reads no event.
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

__all__ = ["lives", "visits"]

Days = Iterable[tuple[int, Any]]

_MOST_NUMBER = 20_000_000  # of a person; counting takes two bytes for each
_LIVES = ("new", "returning", "resurrecting", "dormant")


async def lives(inquiry: ReportContext, scope: Scope, calendar: Calendar, grain: Grain) -> Result | None:
    """The answer of `lifecycle` about all events of `scope`; None where bitmaps do not know it."""
    if not _of_days(calendar, grain):
        return None
    first = None if scope.start_us is None else calendar.number_of(grain, scope.start_us // DAY_US)
    last = calendar.number_of(grain, inquiry.last_us(scope) // DAY_US)
    compute = partial(_lives, calendar=calendar, grain=grain, first=first, last=last)
    return await inquiry.daily_people(scope.between(None, scope.end_us), compute, report="lifecycle")


async def visits(
    inquiry: ReportContext, scope: Scope, calendar: Calendar, grain: Grain, interval: Grain | None
) -> Result | None:
    """The answer of `stickiness` about all events of `scope`; None where bitmaps do not know it."""
    if not _of_days(calendar, grain):
        return None
    most, start_us, end_us = None, scope.start_us, scope.end_us
    if interval is None and start_us is not None and end_us is not None and start_us < end_us:
        first, last = (calendar.number_of(grain, us // DAY_US) for us in (start_us, end_us - 1))
        most = last - first + 1
    compute = partial(_visits, calendar=calendar, grain=grain, interval=interval, most=most)
    return await inquiry.daily_people(scope, compute, report="stickiness")


def _of_days(calendar: Calendar, grain: Grain) -> bool:
    """Whether the periods are made of whole days of UTC."""
    return calendar.tz == "UTC" and grain in ("day", "week", "month")


def _lives(days: Days, calendar: Calendar, grain: Grain, first: int | None, last: int) -> pa.Table:
    """From the period `first` (None: the first that has people) to `last`, or the last that has any. Blocks."""
    from pyroaring import BitMap  # only objects that answer questions pay for it

    rows: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    ever, before, latest = BitMap(), BitMap(), None
    for at, people in _periods(days, calendar, grain):
        if latest is not None and at > latest + 1:
            rows[latest + 1][3] = len(before)
            before = BitMap()
        fresh, kept = people.difference_cardinality(ever), people.intersection_cardinality(before)
        rows[at] = [fresh, kept, len(people) - fresh - kept, len(before) - kept]
        ever, before, latest = ever | people, people, at
    if latest is None:
        return _table([], _LIVES, [])
    rows[latest + 1][3] = len(before)
    every = range(min(rows) if first is None else first, max(latest, last) + 1)
    return _table([calendar.day_of(grain, at) for at in every], _LIVES, [rows[at] for at in every])


def _visits(days: Days, calendar: Calendar, grain: Grain, interval: Grain | None, most: int | None) -> pa.Table | None:
    """Up to `most` periods (None: the most that anybody has). None where counting takes too much memory. Blocks."""
    times: list[int] = []
    rows: list[tuple[Any, ...]] = []
    for at, some in groupby(days, lambda day: 0 if interval is None else calendar.number_of(interval, day[0])):
        counts = _counts(people for _, people in _periods(some, calendar, grain))
        if counts is None:
            return None
        counts += [0] * ((0 if most is None else most + 1) - len(counts))
        if total := sum(counts[1:]):
            least = total
            for periods, people in enumerate(counts[1:], 1):
                rows.append((periods, people, people / total, least))
                least -= people
            times += [] if interval is None else [calendar.day_of(interval, at)] * (len(counts) - 1)
    return _table(None if interval is None else times, ("periods", "people", "share", "at_least"), rows)


def _periods(days: Days, calendar: Calendar, grain: Grain) -> Iterator[tuple[int, Any]]:
    """The number and the people of each period that has any."""
    from pyroaring import BitMap  # only objects that answer questions pay for it

    for number, some in groupby(days, lambda day: calendar.number_of(grain, day[0])):
        people = BitMap.union(*(one for _, one in some))
        if people:
            yield number, people


def _counts(periods: Iterable[Any]) -> list[int] | None:
    """How many people are in none, in one, in two … of the bitmaps. None: their numbers are too high."""
    import numpy as np  # only objects that answer questions pay for it

    times: NDArray[np.uint16] = np.zeros(0, np.uint16)
    for people in periods:
        numbers: NDArray[np.uint32] = np.frombuffer(people.to_array(), np.uint32)
        highest = int(numbers[-1])
        if highest > _MOST_NUMBER:
            return None
        if highest >= len(times):
            times = np.concatenate([times, np.zeros(highest + 1 - len(times), np.uint16)])
        times[numbers] += 1
    found: list[int] = np.bincount(times).tolist()
    return found


def _table(days: Sequence[int] | None, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows, behind the day on which the period of each starts."""
    kinds = [pa.float64() if name == "share" else pa.int64() for name in names]
    columns = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    if days is None:
        return pa.table(columns, names=names)
    return pa.table([pa.array(days, pa.int32()).cast(pa.date32()), *columns], names=["time", *names])
