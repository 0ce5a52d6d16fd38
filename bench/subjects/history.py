"""What answers and commits cost as the archive grows: in days, and in snapshots."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench import sample
from bench.goal import Goal
from bench.lake import BY_SIZE, clock_before, fill_days, opened
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run
from lakebed import Analytics, ManualClock
from lakebed.clock import from_us

GOALS: Sequence[Goal] = ()
DAYS, SNAPSHOTS = (1, 10, 100), (10, 100, 300)
EVENTS, EACH, REPEATED = 60_000, 100, 3
_WHAT = {
    "day": "query of one day",
    "all": "query of all of it",
    "as_of": "the same, as_of half an hour ago",
    "dau": "dau(30)",
    "archive": "archive 100 more events",
}


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(REPEATED):
        start = time.perf_counter()
        await work()
        times.append((time.perf_counter() - start) * 1_000)
    return statistics.median(times)


async def costs(analytics: Analytics, clock: ManualClock, number: int) -> Figures:
    """Every kind of work once more."""
    now = from_us(clock.now_us())
    day = "SELECT count(*), sum(revenue) FROM events WHERE timestamp >= $1 AND timestamp < $2"
    everything = "SELECT event, count(*) AS n FROM events GROUP BY event ORDER BY n DESC"
    bounds = [now - timedelta(days=1), now]
    figures = {
        "day": await _timed(lambda: analytics.query(day, bounds)),
        "all": await _timed(lambda: analytics.query(everything)),
        "as_of": await _timed(lambda: analytics.query(everything, as_of=now - timedelta(minutes=30))),
        "dau": await _timed(lambda: analytics.dau(days=30)),
    }
    await analytics.batch(sample.batch(number, EACH, at_us=clock.now_us()))
    start = time.perf_counter()
    await analytics.archive()
    return figures | {"archive": (time.perf_counter() - start) * 1_000}


def days(directory: Path, events: int, days: int) -> Iterator[Figures]:
    """The same number of events over more days: more partitions and files, in one commit."""
    clock = clock_before(days)
    with opened(directory, clock=clock, **BY_SIZE) as (loop, analytics):
        loop.run(fill_days(analytics, clock, events, days))
        loop.run(analytics.archive())
        number = 1 << 30
        while True:
            number += 1
            yield loop.run(costs(analytics, clock, number))


def snapshots(directory: Path, runs: int, most: int) -> Iterator[Figures]:
    """One commit after the other, of 100 events of the same day. Each size is measured when it is reached."""
    clock, turns = clock_before(1), [Figures() for _ in range(runs)]
    with opened(directory, clock=clock, **BY_SIZE) as (loop, analytics):
        commits = 0
        for size in (size for size in SNAPSHOTS if size <= most):
            while commits < size:
                loop.run(_commit(analytics, clock, commits))
                commits += 1
            loop.run(analytics.rollup())
            for turn in turns:
                turn |= {f"{size} {name}": ms for name, ms in loop.run(costs(analytics, clock, commits)).items()}
                commits += 1
    yield from turns


async def _commit(analytics: Analytics, clock: ManualClock, number: int) -> None:
    clock.advance(60)
    await analytics.batch(sample.batch(number, EACH, at_us=clock.now_us()))
    await analytics.archive()


def rows(run: Run) -> list[Row]:
    """Rows of days, then rows of snapshots; each compared with the least history."""
    options = {"events": run.of(EVENTS, least=10_000)}
    largest = next((size for size in reversed(SNAPSHOTS) if size <= run.of(SNAPSHOTS[-1], least=10)), 10)
    contenders = [Contender(f"{amount} days", days, options | {"days": amount}) for amount in DAYS]
    results = run.turns([*contenders, Contender("snapshots", snapshots, {"runs": run.runs, "most": largest})])
    table_rows = []
    for name, work in _WHAT.items():
        for amount in DAYS:
            peers = {"1 day": results.get("1 days", name)} if amount > 1 else {}
            table_rows.append(
                Row("history", f"{work}, {amount} archived days", "ms", results.get(f"{amount} days", name), peers)
            )
    for name, work in _WHAT.items():
        for amount in (size for size in SNAPSHOTS if size <= largest):
            peers = {"10 snapshots": results.get("snapshots", f"10 {name}")} if amount > 10 else {}
            result = results.get("snapshots", f"{amount} {name}")
            table_rows.append(Row("history", f"{work}, {amount} snapshots", "ms", result, peers))
    return table_rows
