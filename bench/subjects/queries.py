"""SQL over thirty archived days: now, and as of a moment at which all of them had been received."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb as engine

from bench import sample
from bench.goal import FLOOR, Goal
from bench.lake import clock_before, opened
from bench.measure import Contender, Figures
from bench.peers import clickhouse
from bench.questions import QUESTIONS
from bench.row import Row
from bench.run import Run
from bench.stored import SORTED, Stored
from lakebed.clock import from_us

_NOW = "the same query now"
SQL = Goal("≤ 1.3 x DuckDB on one sorted file", "SQL over archived events", of=FLOOR, most=1.3)
AS_OF = Goal("≤ 1.3 x the same query now", "as_of over archived events", of=_NOW, most=1.3)
GOALS: Sequence[Goal] = (SQL, AS_OF)
ASKED = 5  # times a turn, of which the median counts


def asked(each: Callable[[], Any]) -> float:
    """Milliseconds."""
    found = []
    for _ in range(ASKED):
        start = time.perf_counter()
        each()
        found.append((time.perf_counter() - start) * 1_000)
    return statistics.median(found)


def lakebed(_: Path, place: str) -> Iterator[Figures]:
    """All of `await analytics.query(...)`: parsing, planning, reading, and the result as Arrow."""
    # The clock stands a second later than the last event, so that `as_of` lies behind every one of them.
    clock, as_of = clock_before(-1 / 86_400), from_us(sample.NOW_US + 500_000)
    with opened(Path(place) / "lakebed", clock=clock) as (loop, analytics):
        while True:
            found = {}
            for number, question in enumerate(QUESTIONS):
                sql = question.sql.format(events="events")
                found[f"now {number}"] = asked(lambda sql=sql: loop.run(analytics.query(sql)))
                found[f"then {number}"] = asked(lambda sql=sql: loop.run(analytics.query(sql, as_of=as_of)))
            yield found


def duckdb(_: Path, place: str, source: str, threads: int) -> Iterator[Figures]:
    """DuckDB on the sorted file, or on its own table; the result as Arrow."""
    file = Path(place) / source
    connection = engine.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    events = f"'{file}'"
    if not source.endswith(".parquet"):
        connection.execute(f"ATTACH '{file}' AS kept (READ_ONLY)")
        events = "kept.events"
    while True:
        yield {
            f"now {number}": asked(lambda sql=question.sql: connection.sql(sql.format(events=events)).to_arrow_table())
            for number, question in enumerate(QUESTIONS)
        }


def chdb(_: Path, place: str) -> Iterator[Figures]:
    """chDB on its own table, on all cores."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    try:
        while True:
            yield {
                f"now {number}": asked(lambda question=question: tree.ask(question.in_clickhouse()))
                for number, question in enumerate(QUESTIONS)
            }
    finally:
        tree.close(keep=True)


def contenders(stored: Stored) -> list[Contender]:
    """Lakebed leaves a core to tracking (query_threads=0), so the floor has one less than there are, too."""
    import os  # noqa: PLC0415 - for this line

    cores = len(os.sched_getaffinity(0))
    place = {"place": str(stored.directory)}
    return [
        Contender("lakebed", lakebed, place),
        Contender("floor", duckdb, place | {"source": SORTED, "threads": max(1, cores - 1)}),
        Contender("duckdb", duckdb, place | {"source": "events.duckdb", "threads": cores}),
        Contender("chdb", chdb, place),
    ]


def rows(run: Run) -> list[Row]:
    """Two rows a question."""
    stored, found = run.stored, []
    done = run.turns(contenders(stored))
    for number, question in enumerate(QUESTIONS):
        now = done.get("lakebed", f"now {number}")
        peers = {
            "DuckDB table, all cores": done.get("duckdb", f"now {number}"),
            "chDB MergeTree, all cores": stored.failures.get("chdb") or done.get("chdb", f"now {number}"),
        }
        work, least = f"SQL over {stored.events:,} archived: {question.name}", done.get("floor", f"now {number}")
        found += [
            Row("queries", work, "ms", now, peers, least, "DuckDB, one sorted Parquet file", [SQL]),
            Row(
                "queries",
                f"… as_of: {question.name}",
                "ms",
                done.get("lakebed", f"then {number}"),
                {_NOW: now},
                goals=[AS_OF],
            ),
        ]
    return found
