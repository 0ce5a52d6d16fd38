"""Daily actives and hourly series of thirty days, from the rollups."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb as engine

from bench import sample
from bench.goal import Goal
from bench.lake import clock_before, opened, percentile
from bench.measure import Contender, Figures
from bench.peers import clickhouse, sqlite
from bench.row import Row
from bench.run import Run
from bench.stored import DAYS, SORTED
from lakebed.clock import from_us

_DESIGN = "dau(30), timeseries of 30 days by hour, p99"
DAU = Goal("p99 ≤ 10 ms", _DESIGN, most=10)
SERIES = Goal("p99 ≤ 10 ms ", _DESIGN, most=10)
GOALS: Sequence[Goal] = (DAU, SERIES)
CALLS = 200
_START = from_us(sample.NOW_US) - timedelta(days=DAYS)

_DUCK = """
SELECT CAST(timestamp AS DATE) AS day, count(DISTINCT coalesce(user_id, anonymous_id)) AS dau, count(*) AS events
FROM '{file}' GROUP BY day ORDER BY day"""
_CHDB = """
SELECT toDate(timestamp, 'UTC') AS day, uniqExact(coalesce(user_id, anonymous_id)) AS dau, count() AS events
FROM lake.stored GROUP BY day ORDER BY day"""


def _timed(each: Callable[[], Any]) -> float:
    start = time.perf_counter()
    each()
    return (time.perf_counter() - start) * 1_000


def _both(name: str, each: Callable[[], Any]) -> Figures:
    times = [_timed(each) for _ in range(CALLS)]
    return {f"{name} p50": percentile(times, 0.5), f"{name} p99": percentile(times, 0.99)}


def lakebed(_: Path, place: str) -> Iterator[Figures]:
    """Each call catches up first: there is nothing new, and it has to find that out."""
    with opened(Path(place) / "lakebed", clock=clock_before(-1 / 86_400)) as (loop, analytics):

        def dau() -> None:
            loop.run(analytics.dau(days=DAYS))

        def series() -> None:
            loop.run(analytics.timeseries(start=_START, end=from_us(sample.NOW_US)))

        for warm in (dau, series):
            warm()
        while True:
            yield _both("dau", dau) | _both("series", series)


def raw_events(_: Path, place: str) -> Iterator[Figures]:
    """The seed's COUNT(DISTINCT)."""
    table = sqlite.RawEvents(Path(place) / "raw.db")
    while True:
        yield {"dau p99": _timed(lambda: table.connection.execute(sqlite.DAU, ["2025"]).fetchall())}


def duckdb(_: Path, place: str) -> Iterator[Figures]:
    """DuckDB on the sorted file, all cores."""
    connection = engine.connect()
    connection.execute("SET TimeZone = 'UTC'")
    sql = _DUCK.format(file=Path(place) / SORTED)
    while True:
        yield {"dau p99": _timed(lambda: connection.sql(sql).to_arrow_table())}


def chdb(_: Path, place: str) -> Iterator[Figures]:
    """chDB on its own table, all cores."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    try:
        while True:
            yield {"dau p99": _timed(lambda: tree.ask(_CHDB))}
    finally:
        tree.close(keep=True)


def rows(run: Run) -> list[Row]:
    """p50 and p99 of both."""
    stored = run.stored
    options = {"place": str(stored.directory)}
    results = run.turns([Contender(turns.__name__, turns, options) for turns in (lakebed, raw_events, duckdb, chdb)])
    peers = {
        "SQLite, COUNT(DISTINCT) over raw_events": results.get("raw_events", "dau p99"),
        "DuckDB, one sorted Parquet file": results.get("duckdb", "dau p99"),
        "chDB MergeTree, uniqExact": stored.failures.get("chdb") or results.get("chdb", "dau p99"),
    }
    history = f"{stored.events:,} events"
    return [
        Row("metrics", f"dau(30), p99, {history}", "ms", results.get("lakebed", "dau p99"), peers, goals=[DAU]),
        Row("metrics", f"dau(30), p50, {history}", "ms", results.get("lakebed", "dau p50")),
        Row(
            "metrics",
            f"timeseries of 30 days by hour, p99, {history}",
            "ms",
            results.get("lakebed", "series p99"),
            goals=[SERIES],
        ),
        Row("metrics", f"timeseries of 30 days by hour, p50, {history}", "ms", results.get("lakebed", "series p50")),
    ]
