"""SQL over thirty archived days: now, and as of a moment at which all of them had been received."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb as engine
import pyarrow as pa
import pyarrow.compute as pc

from bench import sample
from bench.goal import FLOOR, Goal
from bench.lake import clock_before, opened
from bench.measure import Contender, Failed, Figures, Found, Results
from bench.peers import clickhouse
from bench.questions import QUESTIONS, Question
from bench.row import Row
from bench.run import Run
from bench.stored import SORTED, Stored
from lakebed import Result
from lakebed.clock import from_us

_NOW = "the same query now"
SQL = Goal("≤ 1.3 x DuckDB on one sorted file", "SQL over archived events", of=FLOOR, most=1.3)
AS_OF = Goal("≤ 1.3 x the same query now", "as_of over archived events", of=_NOW, most=1.3)
GOALS: Sequence[Goal] = (SQL, AS_OF)
ASKED = 5  # times a turn, of which the median counts


def asked(*calls: Callable[[], Any]) -> list[float]:
    """The median milliseconds of each call; the calls take turns."""
    all_times: list[list[float]] = [[] for _ in calls]
    for _ in range(ASKED):
        for times, call in zip(all_times, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1_000)
    return [statistics.median(times) for times in all_times]


def total(answer: pa.Table) -> float:
    """What an answer comes to: equal answers have equal totals, in whatever order floats were added."""
    numbers = [
        column for column in answer.columns if pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    ]
    return answer.num_rows + sum(float(pc.sum(column).as_py() or 0) for column in numbers)


def lakebed(_: Path, place: str) -> Iterator[Figures]:
    """All of `await analytics.query(...)`: parsing, planning, reading, and the result as Arrow."""
    # The clock stands a second later than the last event, so that `as_of` lies behind every one of them.
    clock, as_of = clock_before(-1 / 86_400), from_us(sample.NOW_US + 500_000)
    with opened(Path(place) / "lakebed", clock=clock) as (loop, analytics):
        while True:
            figures = {}
            for number, question in enumerate(QUESTIONS):
                sql = question.sql.format(events="events")

                def now(sql: str = sql) -> Result:
                    return loop.run(analytics.query(sql))

                def then(sql: str = sql) -> Result:
                    return loop.run(analytics.query(sql, as_of=as_of))

                figures[f"now {number}"], figures[f"then {number}"] = asked(now, then)
                figures[f"now {number} is"], figures[f"then {number} is"] = total(now().arrow()), total(then().arrow())
            yield figures


def _answering(ask: Callable[[Question], pa.Table]) -> Iterator[Figures]:
    while True:
        figures = {}
        for number, question in enumerate(QUESTIONS):
            (figures[f"now {number}"],) = asked(lambda question=question: ask(question))
            figures[f"now {number} is"] = total(ask(question))
        yield figures


def agreed(results: Results, name: str, figure: str) -> Found:
    """A time, if the answer was the floor's: a wrong answer has no speed."""
    duration, answer = results.get(name, figure), results.get(name, f"{figure} is")
    floor_answer = results.get("floor", f"now {figure.rsplit(maxsplit=1)[-1]} is")
    if (
        isinstance(answer, Failed)
        or isinstance(floor_answer, Failed)
        or math.isclose(answer.median, floor_answer.median, rel_tol=1e-6)
    ):
        return duration
    return Failed(f"its answer comes to {answer.median}, the floor's to {floor_answer.median}")


def duckdb(_: Path, place: str, source: str, threads: int) -> Iterator[Figures]:
    """DuckDB on the sorted file, or on its own table; the result as Arrow."""
    file = Path(place) / source
    connection = engine.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    events = f"'{file}'"
    if not source.endswith(".parquet"):
        connection.execute(f"ATTACH '{file}' AS kept (READ_ONLY)")
        events = "kept.events"
    yield from _answering(lambda question: connection.sql(question.sql.format(events=events)).to_arrow_table())


def chdb(_: Path, place: str) -> Iterator[Figures]:
    """chDB on its own table, on all cores."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    try:
        yield from _answering(lambda question: tree.ask(question.in_clickhouse()))
    finally:
        tree.close(keep=True)


def contenders(stored: Stored) -> list[Contender]:
    """Lakebed leaves a core to tracking (query_threads=0), so the floor has one less than there are, too."""
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
    stored, table_rows = run.stored, []
    results = run.turns(contenders(stored))
    for number, question in enumerate(QUESTIONS):
        now = agreed(results, "lakebed", f"now {number}")
        peers = {
            "DuckDB table, all cores": agreed(results, "duckdb", f"now {number}"),
            "chDB MergeTree, all cores": stored.failures.get("chdb") or agreed(results, "chdb", f"now {number}"),
        }
        work = f"SQL over {stored.events:,} archived: {question.name}"
        floor_ms = results.get("floor", f"now {number}")
        table_rows += [
            Row("queries", work, "ms", now, peers, floor_ms, "DuckDB, one sorted Parquet file", [SQL]),
            Row(
                "queries",
                f"… as_of: {question.name}",
                "ms",
                agreed(results, "lakebed", f"then {number}"),
                {_NOW: now},
                goals=[AS_OF],
            ),
        ]
    return table_rows
