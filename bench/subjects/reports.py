"""Reports over a year of visits, beside SQL that an analyst would write for DuckDB over the same Parquet files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb as engine

from bench import visits
from bench.goal import FLOOR, Goal
from bench.lake import BY_SIZE, NAME, opened
from bench.measure import Contender, Failed, Figures, Found, Results, take_turns
from bench.peers import clickhouse
from bench.reported import QUESTIONS
from bench.row import Row
from bench.run import Run
from bench.stored import archived_files
from lakebed import Analytics, ManualClock
from lakebed.clock import from_us

GOAL = Goal("≤ 1.5 x hand-written DuckDB", "a report over a year of events", of=FLOOR, most=1.5)
GOALS: Sequence[Goal] = (GOAL,)
EVENTS = 1_000_000
_PEER = "chDB MergeTree, all cores"


def fill(_: Path, place: str, events: int) -> Iterator[Figures]:
    """The object: every event archived."""
    yield asyncio.run(_fill(Path(place) / "lakebed", events))


async def _fill(root: Path, events: int) -> Figures:
    clock = ManualClock(from_us(visits.START_US))
    stored = 0
    async with Analytics(NAME, root=root, clock=clock, **BY_SIZE) as analytics:
        for end_us, bodies in visits.days(events):
            clock.advance((end_us - clock.now_us()) / 1e6)
            for body in bodies:
                stored += len(await analytics.batch(body))
        await analytics.archive()
        await analytics.compact()
    return {"events": stored}


def fill_chdb(_: Path, place: str) -> Iterator[Figures]:
    """chDB's MergeTree of the same rows, merged."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    for number, path in enumerate(archived_files(Path(place))):
        create = clickhouse.FROM_PARQUET.format(path=path)
        tree.ask(create if not number else f"INSERT INTO lake.stored SELECT * FROM file('{path}', Parquet)")
    tree.ask("OPTIMIZE TABLE lake.stored FINAL")
    tree.close(keep=True)
    yield {}


def _timed(ask: Callable[[], list[tuple[Any, ...]]], number: int) -> Figures:
    start = time.perf_counter()
    answer = ask()
    elapsed_ms = (time.perf_counter() - start) * 1_000
    return {f"{number}": elapsed_ms, f"{number} is": sum(float(value) for row in answer for value in row)}


def lakebed(_: Path, place: str) -> Iterator[Figures]:
    """All of `await analytics.funnel(...)` and its like."""
    with opened(Path(place) / "lakebed", clock=ManualClock(from_us(visits.START_US + 400 * 86_400_000_000))) as (
        loop,
        analytics,
    ):
        for question in QUESTIONS:  # imports, footers, and the map of who is who
            loop.run(question.ask(analytics))
        while True:
            figures: Figures = {}
            for number, question in enumerate(QUESTIONS):
                figures |= _timed(lambda question=question: question.figures(loop.run(question.ask(analytics))), number)
            yield figures


def duckdb(_: Path, place: str, threads: int) -> Iterator[Figures]:
    """The SQL over the same files, with as many threads as Lakebed."""
    connection = engine.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    events = f"read_parquet({archived_files(Path(place))}, hive_partitioning = false)"
    for question in QUESTIONS:
        connection.execute(question.sql.format(events=events))
    while True:
        figures: Figures = {}
        for number, question in enumerate(QUESTIONS):
            sql = question.sql.format(events=events)
            figures |= _timed(lambda sql=sql: connection.execute(sql).fetchall(), number)
        yield figures


def chdb(_: Path, place: str) -> Iterator[Figures]:
    """The SQL over chDB's own table, on all cores."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    try:
        while True:
            figures: Figures = {}
            for number, question in enumerate(QUESTIONS):
                if question.clickhouse:
                    ask = lambda sql=question.clickhouse: [tuple(row.values()) for row in tree.ask(sql).to_pylist()]  # noqa: E731 - timed
                    figures |= _timed(ask, number)
            yield figures
    finally:
        tree.close(keep=True)


def _agreed(results: Results, name: str, number: int) -> Found:
    """A time, if the answer was the floor's: a wrong answer has no speed."""
    duration, answer, floor_answer = (
        results.get(name, f"{number}"),
        results.get(name, f"{number} is"),
        results.get("floor", f"{number} is"),
    )
    if isinstance(answer, Failed) or isinstance(floor_answer, Failed) or answer.median == floor_answer.median:
        return duration
    return Failed(f"its answer comes to {answer.median}, the floor's to {floor_answer.median}")


def rows(run: Run) -> list[Row]:
    """A row a report."""
    directory = run.directory / "visits"
    directory.mkdir()
    place = {"place": str(directory)}
    events = run.of(EVENTS, least=20_000)
    filled = take_turns([Contender("fill", fill, place | {"events": events})], 1, directory / "work").get(
        "fill", "events"
    )
    assert not isinstance(filled, Failed), f"the visits could not be stored: {filled.reason}"
    take_turns([Contender("chdb", fill_chdb, place)], 1, directory / "work-chdb")
    threads = max(1, len(os.sched_getaffinity(0)) - 1)
    results = run.turns(
        [
            Contender("lakebed", lakebed, place),
            Contender("floor", duckdb, place | {"threads": threads}),
            Contender("chdb", chdb, place),
        ]
    )
    return [
        Row(
            "reports",
            f"{question.name}, {int(filled.median):,} events",
            "ms",
            _agreed(results, "lakebed", number),
            {_PEER: _agreed(results, "chdb", number)} if question.clickhouse else {},
            results.get("floor", f"{number}"),
            "DuckDB, hand-written SQL over the same Parquet files",
            [GOAL],
        )
        for number, question in enumerate(QUESTIONS)
    ]
