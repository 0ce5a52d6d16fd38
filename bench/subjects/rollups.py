"""What a rollup costs: the hour's and the day's tables, brought up to date with a day of new events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import duckdb as engine

from bench import plain, sample
from bench.goal import Goal
from bench.lake import UNSEALED, clock_before, fill_days, opened
from bench.measure import Contender, Figures
from bench.peers import clickhouse, duck, sqlite
from bench.row import Row
from bench.run import Run

RATE = Goal("≥ 1,500,000 events/s", "hourly + daily rollup, incremental", least=1_500_000)
GOALS: Sequence[Goal] = (RATE,)
EVENTS = 240_000
BEFORE = 30  # days of the sample's time that the turns may use

HOURLY = "SELECT date_trunc('hour', timestamp) AS hour, event, count(*) AS count FROM {rows} GROUP BY ALL"
DAILY = """
SELECT CAST(timestamp AS DATE) AS date, count(DISTINCT coalesce(user_id, anonymous_id)) AS dau, count(*) AS events
FROM {rows} GROUP BY ALL"""
_CHDB_TABLES = """
CREATE TABLE IF NOT EXISTS lake.hourly (hour DateTime, event Nullable(String), count UInt64)
ENGINE = SummingMergeTree ORDER BY (hour, event) SETTINGS allow_nullable_key = 1;
CREATE TABLE IF NOT EXISTS lake.daily (
    date Date, dau AggregateFunction(uniqExact, Nullable(String)), events SimpleAggregateFunction(sum, UInt64)
) ENGINE = AggregatingMergeTree ORDER BY date"""
_CHDB_ROLLUPS = """
INSERT INTO lake.hourly SELECT toStartOfHour(timestamp), event, count() FROM lake.events GROUP BY 1, 2;
INSERT INTO lake.daily SELECT toDate(timestamp), uniqExactState(coalesce(userId, anonymousId)), count()
FROM lake.events GROUP BY 1"""


def day(turn: int, events: int) -> list[bytes]:
    """The batches of one day."""
    start = clock_before(BEFORE - turn).now_us()
    return [body for _, body in sample.spread(events, start, 1, turn * events // sample.BATCH)]


def _rate(events: int, start: float) -> Figures:
    return {"rate": events / (time.perf_counter() - start)}


def lakebed(directory: Path, events: int) -> Iterator[Figures]:
    """`rollup()`: both tables, the totals, and the checkpoints, durable."""
    clock = clock_before(BEFORE)
    with opened(directory, clock=clock, **UNSEALED) as (loop, analytics):
        for turn in count():
            loop.run(fill_days(analytics, clock, events, 1, turn * events // sample.BATCH))
            start = time.perf_counter()
            rolled_up = loop.run(analytics.rollup())
            figures = _rate(events, start)
            assert rolled_up.events >= events, f"{rolled_up.events} events were rolled up, not {events}"
            yield figures


def floor(_: Path, events: int) -> Iterator[Figures]:
    """Two GROUP BYs in memory, on the threads that Lakebed uses; nothing is stored."""
    connection = engine.connect(config={"threads": 1})
    rows = plain.table(day(0, events))
    while True:
        start = time.perf_counter()
        for sql in (HOURLY, DAILY):
            connection.sql(sql.format(rows="rows")).to_arrow_table()
        yield _rate(rows.num_rows, start)


def raw_events(directory: Path, events: int) -> Iterator[Figures]:
    """The seed's INSERT … SELECT, over the new rows alone."""
    table = sqlite.RawEvents(directory / "raw.db", "FULL")
    for turn in count():
        after = table.last()
        for body in day(turn, events):
            table.take(body)
        start = time.perf_counter()
        table.roll_up(after)
        yield _rate(events, start)


def duckdb(directory: Path, events: int) -> Iterator[Figures]:
    """INSERT … SELECT over the new rows alone, both tables in one transaction."""
    table = duck.Table(directory / "events.duckdb")
    for name, sql in (("hourly", HOURLY), ("daily", DAILY)):
        table.connection.execute(f"CREATE TABLE {name} AS {sql.format(rows='events')}")
    for turn in count():
        for batch in plain.table(day(turn, events), turn * events).to_batches():
            table.insert(batch)
        start = time.perf_counter()
        table.connection.execute("BEGIN")
        for name, sql in (("hourly", HOURLY), ("daily", DAILY)):
            new = sql.format(rows=f"(FROM events WHERE seq >= {turn * events})")
            table.connection.execute(f"INSERT INTO {name} {new}")
        table.connection.execute("COMMIT")
        yield _rate(events, start)


def chdb(directory: Path, events: int) -> Iterator[Figures]:
    """INSERT … SELECT into a summing and an aggregating table: states that merge, as ClickHouse advises."""
    tree = clickhouse.MergeTree(directory / "chdb", sync=True)
    for sql in _CHDB_TABLES.split(";"):
        tree.ask(sql)
    for turn in count():
        tree.create()
        tree.fill(day(turn, events))
        start = time.perf_counter()
        for sql in _CHDB_ROLLUPS.split(";"):
            tree.ask(sql)
        yield _rate(events, start)


def rows(run: Run) -> list[Row]:
    """One row."""
    options = {"events": run.of(EVENTS)}
    results = run.turns(
        [Contender(turns.__name__, turns, options) for turns in (lakebed, floor, raw_events, duckdb, chdb)]
    )
    peers = {
        "SQLite, the seed's INSERT … SELECT, synchronous=FULL": results.get("raw_events", "rate"),
        "DuckDB table, INSERT … SELECT, WAL synced": results.get("duckdb", "rate"),
        "chDB, SummingMergeTree and uniqExactState": results.get("chdb", "rate"),
    }
    work, floor_rate = f"hourly + daily rollup of {run.of(EVENTS):,} new events", results.get("floor", "rate")
    rate = results.get("lakebed", "rate")
    return [Row("rollups", work, "events/s", rate, peers, floor_rate, "the GROUP BYs, 1 thread, not stored", GOALS)]
