"""Single events, awaited: how many with 256 in flight, how long with one."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from bench import sample
from bench.goal import FLOOR, Goal
from bench.lake import opened, percentile
from bench.measure import Contender, Figures
from bench.peers import duck, sqlite
from bench.row import Row
from bench.run import Run
from lakebed import Analytics

RATE = Goal("≥ 40,000 events/s", "track awaited, 256 in flight", least=40_000)
LATENCY = Goal("≤ 2 x fdatasync + 0.5 ms", "track awaited, one in flight, p50", of=FLOOR, most=2, plus=0.5)
GOALS: Sequence[Goal] = (RATE, LATENCY)
IN_FLIGHT = 256
MANY, ONE = 30_000, 400
PROPERTIES = {"sku": "85123A", "quantity": 6, "unit_price": 2.55, "revenue": 15.3, "country": "United Kingdom"}


def latencies(call: Callable[[], object], calls: int) -> Figures:
    """p50 and p99 of a call that is made again and again, ms."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1_000)
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


async def _many(analytics: Analytics, each: int) -> float:
    async def one(user: str) -> None:
        for _ in range(each):
            await analytics.track("Order Completed", PROPERTIES, user_id=user)

    start = time.perf_counter()
    await asyncio.gather(*(one(f"user-{number}") for number in range(IN_FLIGHT)))
    return IN_FLIGHT * each / (time.perf_counter() - start)


def many(directory: Path, events: int) -> Iterator[Figures]:
    """256 tasks, each awaiting its event before the next."""
    for turn in count():
        with opened(directory / str(turn)) as (loop, analytics):
            rate = loop.run(_many(analytics, max(1, events // IN_FLIGHT)))
        shutil.rmtree(directory / str(turn))
        yield {"rate": rate}


async def _one(analytics: Analytics, events: int) -> Figures:
    times = []
    for _ in range(events):
        start = time.perf_counter()
        await analytics.track("Order Completed", PROPERTIES, user_id="user-1")
        times.append((time.perf_counter() - start) * 1_000)
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def one(directory: Path, events: int) -> Iterator[Figures]:
    """One task."""
    with opened(directory) as (loop, analytics):
        while True:
            yield loop.run(_one(analytics, events))


def floor(directory: Path, events: int) -> Iterator[Figures]:
    """A write of 300 bytes and an fdatasync."""
    descriptor = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT, 0o644)

    def sync() -> None:
        os.write(descriptor, b"x" * 300)
        os.fdatasync(descriptor)

    while True:
        yield latencies(sync, events)


def raw_events(directory: Path, events: int) -> Iterator[Figures]:
    """SQLite, a transaction an event."""
    table = sqlite.RawEvents(directory / "raw.db", "FULL")
    body = sample.batch(0, 1)
    while True:
        yield latencies(lambda: table.take(body), events)


def duckdb(directory: Path, events: int) -> Iterator[Figures]:
    """DuckDB, a transaction an event."""
    table = duck.Table(directory / "events.duckdb")
    body = sample.batch(0, 1)
    while True:
        yield latencies(lambda: table.take(body), events)


def rows(run: Run) -> list[Row]:
    """Throughput, and both percentiles of one."""
    few = {"events": run.of(ONE, 50)}
    results = run.turns(
        [
            Contender("many", many, {"events": run.of(MANY, 2_000)}),
            Contender("one", one, few),
            Contender("floor", floor, few),
            Contender("sqlite", raw_events, few),
            Contender("duckdb", duckdb, few),
        ]
    )

    def single(share: str, goals: Sequence[Goal]) -> Row:
        peers = {
            "SQLite, one a transaction, synchronous=FULL": results.get("sqlite", share),
            "DuckDB table, one a transaction, WAL synced": results.get("duckdb", share),
        }
        work, floor_ms = f"track awaited, one in flight, {share}", results.get("floor", share)
        return Row(
            "track", work, "ms", results.get("one", share), peers, floor_ms, "write of 300 bytes + fdatasync", goals
        )

    return [
        Row("track", "track awaited, 256 in flight", "events/s", results.get("many", "rate"), goals=[RATE]),
        single("p50", [LATENCY]),
        single("p99", []),
    ]
