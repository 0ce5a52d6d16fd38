"""From `track` to an answer that has the event."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from bench import plain, sample
from bench.goal import Goal
from bench.lake import fill, opened, percentile
from bench.measure import Contender, Figures
from bench.peers import clickhouse, duck, sqlite
from bench.row import Row
from bench.run import Run

GOALS: Sequence[Goal] = ()
EVENTS, CALLS = 50_000, 60


def _figures(name: str, times: list[float]) -> Figures:
    return {f"{name} p50": percentile(times, 0.5), f"{name} p99": percentile(times, 0.99)}


async def _seen(track: Callable[[], Awaitable[object]], ask: Callable[[], Awaitable[int]], calls: int) -> list[float]:
    """Milliseconds until the answer has grown by one."""
    times, before = [], await ask()
    for number in range(1, calls + 1):
        start = time.perf_counter()
        await track()
        answer = await ask()
        times.append((time.perf_counter() - start) * 1_000)
        assert answer == before + number, f"the answer is {answer}, not {before + number}"
    return times


def lakebed(directory: Path, events: int, calls: int) -> Iterator[Figures]:
    """In SQL, in daily actives, in the live counters."""
    with opened(directory) as (loop, analytics):
        loop.run(fill(analytics, sample.batches(events)))

        async def track() -> None:
            await analytics.track("Fresh", {"a": 1}, user_id="user-1")

        async def sql() -> int:
            return (await analytics.query("SELECT count(*) FROM events WHERE event = 'Fresh'")).scalar()

        async def dau() -> int:
            return (await analytics.dau(days=1))[-1].events

        async def live() -> int:
            return analytics.stats().totals.get("Fresh", 0)

        while True:
            figures = {}
            for name, ask in (("sql", sql), ("dau", dau), ("live", live)):
                figures |= _figures(name, loop.run(_seen(track, ask, calls)))
            yield figures


def _peer(take: Callable[[bytes], None], ask: Callable[[], int], calls: int) -> Iterator[Figures]:
    number = 1 << 30
    while True:
        times = []
        for _ in range(calls):
            number += 1
            body, before = sample.batch(number, 1), ask()
            start = time.perf_counter()
            take(body)
            answer = ask()
            times.append((time.perf_counter() - start) * 1_000)
            assert answer == before + 1
        yield _figures("sql", times)


def raw_events(directory: Path, events: int, calls: int) -> Iterator[Figures]:
    """SQLite, synced."""
    table = sqlite.RawEvents(directory / "raw.db", "FULL")
    for body in sample.batches(events):
        table.take(body)
    sql = "SELECT count(*) FROM raw_events WHERE type != 'alias'"
    yield from _peer(table.take, lambda: table.connection.execute(sql).fetchone()[0], calls)


def duckdb(directory: Path, events: int, calls: int) -> Iterator[Figures]:
    """DuckDB, synced."""
    table = duck.Table(directory / "events.duckdb")
    for batch in plain.table(sample.batches(events)).to_batches():
        table.insert(batch)
    sql = "SELECT count(*) FROM events WHERE type != 'alias'"
    yield from _peer(table.take, lambda: table.connection.execute(sql).fetchone()[0], calls)


def chdb(directory: Path, events: int, calls: int) -> Iterator[Figures]:
    """chDB, synced."""
    tree = clickhouse.MergeTree(directory / "chdb", sync=True)
    tree.create()
    tree.fill(sample.batches(events))
    sql = "SELECT count() AS n FROM lake.events WHERE type != 'alias'"
    yield from _peer(tree.take, lambda: _scalar(tree.ask(sql)), calls)


def _scalar(answer: pa.Table) -> int:
    return answer.column(0)[0].as_py()


def rows(run: Run) -> list[Row]:
    """SQL beside the peers, and our other answers."""
    options = {"events": run.of(EVENTS), "calls": run.of(CALLS, least=20, most=CALLS)}
    results = run.turns([Contender(turns.__name__, turns, options) for turns in (lakebed, raw_events, duckdb, chdb)])
    table_rows = []
    for share in ("p50", "p99"):
        peers = {
            "SQLite, synchronous=FULL": results.get("raw_events", f"sql {share}"),
            "DuckDB table, WAL synced": results.get("duckdb", f"sql {share}"),
            "chDB MergeTree, fsync_after_insert": results.get("chdb", f"sql {share}"),
        }
        table_rows.append(
            Row("freshness", f"track until in SQL, {share}", "ms", results.get("lakebed", f"sql {share}"), peers)
        )
    for name, call in (("dau", "dau(1)"), ("live", "stats()")):
        table_rows += [
            Row("freshness", f"track until in {call}, {share}", "ms", results.get("lakebed", f"{name} {share}"))
            for share in ("p50", "p99")
        ]
    return table_rows
