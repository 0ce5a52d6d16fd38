"""How long `track` takes while something heavy runs in the same object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from bench import sample
from bench.goal import Goal
from bench.lake import BY_SIZE, clock_before, fill_days, opened, percentile
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run
from lakebed import Analytics

GOALS: Sequence[Goal] = ()
EVENTS, DAYS, BEFORE = 100_000, 1, 30
PAUSE_S, IDLE_S = 0.002, 0.6
# Hashing every property text many times: all of DuckDB's threads, and no large result.
HEAVY = """
SELECT count(DISTINCT md5(concat(properties, n))) FROM events, range({times}) AS r(n) WHERE seq >= {first}"""
WORK = ("nothing else", "a heavy query", "a rollup", "an archive run")


async def beside(analytics: Analytics, work: Awaitable[Any]) -> list[float]:
    """Milliseconds of the `track`s made, one every 2 ms, until `work` is done."""
    task, times = asyncio.ensure_future(work), []
    while not task.done():
        await asyncio.sleep(PAUSE_S)
        start = time.perf_counter()
        await analytics.track("Click", {"a": 1}, user_id="user-1")
        times.append((time.perf_counter() - start) * 1_000)
    await task
    return times


def lakebed(directory: Path, events: int) -> Iterator[Figures]:
    """Each turn brings a day of new events, for the rollup and the archive run to have work."""
    clock = clock_before(BEFORE)
    with opened(directory, clock=clock, **BY_SIZE) as (loop, analytics):
        for turn in count():
            loop.run(fill_days(analytics, clock, events, DAYS, turn * events // sample.BATCH))
            heavy = HEAVY.format(times=8, first=analytics.stats().next_seq - events)
            figures = {}
            work = (asyncio.sleep(IDLE_S), analytics.query(heavy), analytics.rollup(), analytics.archive())
            for name, task in zip(WORK, work, strict=True):
                times = loop.run(beside(analytics, task))
                figures |= {f"{name} p50": percentile(times, 0.5), f"{name} p99": percentile(times, 0.99)}
            yield figures


def rows(run: Run) -> list[Row]:
    """p50 and p99 beside each kind of work, compared with having nothing else to do."""
    results = run.turns([Contender("lakebed", lakebed, {"events": run.of(EVENTS)})])

    def row(name: str, share: str) -> Row:
        quiet = {f"beside {WORK[0]}": results.get("lakebed", f"{WORK[0]} {share}")} if name != WORK[0] else {}
        return Row(
            "interference", f"track beside {name}, {share}", "ms", results.get("lakebed", f"{name} {share}"), quiet
        )

    return [row(name, share) for name in WORK for share in ("p50", "p99")]
