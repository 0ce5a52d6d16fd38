"""The headlines of the documents that Lakebed grew from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.goal import Goal
from bench.lake import clock_before, opened, percentile
from bench.measure import Contender, Figures
from bench.questions import QUESTIONS
from bench.row import Row
from bench.run import Run
from bench.subjects import ingest, track

_QUERY = "the seeds' queries"
PIPELINE = Goal("≥ 10,000 events/s", "the seeds' pipeline", least=10_000)
WORKER = Goal("≥ 50,000 events/s", "the seeds' worker", least=50_000)
P50 = Goal("p50 < 50 ms", _QUERY, most=50)
P99 = Goal("p99 < 100 ms", _QUERY, most=100)
GOALS: Sequence[Goal] = (PIPELINE, WORKER, P50, P99)
EVENTS, ROUNDS = 40_000, 6


def questions(_: Path, place: str) -> Iterator[Figures]:
    """Every question over thirty archived days, again and again."""
    with opened(Path(place) / "lakebed", clock=clock_before(0)) as (loop, analytics):
        statements = [question.sql.format(events="events") for question in QUESTIONS]
        loop.run(analytics.query(statements[0]))
        while True:
            times = []
            for sql in statements * ROUNDS:
                start = time.perf_counter()
                loop.run(analytics.query(sql))
                times.append((time.perf_counter() - start) * 1_000)
            yield {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def rows(run: Run) -> list[Row]:
    """A row a headline."""
    stored, events = run.stored, {"events": run.of(EVENTS)}
    results = run.turns(
        [
            Contender("pipeline", track.many, events),
            Contender("worker", ingest.lakebed, events, cores=1),
            Contender("questions", questions, {"place": str(stored.directory)}),
        ]
    )
    work = f"every question over {stored.events:,} archived events"
    return [
        Row(
            "seeds",
            "pipeline: single tracks, durable, 256 in flight",
            "events/s",
            results.get("pipeline", "rate"),
            goals=[PIPELINE],
        ),
        Row(
            "seeds",
            "one worker on one core, batches of 1,000",
            "events/s",
            results.get("worker", "rate"),
            goals=[WORKER],
        ),
        Row("seeds", f"{work}, p50", "ms", results.get("questions", "p50"), goals=[P50]),
        Row("seeds", f"{work}, p99", "ms", results.get("questions", "p99"), goals=[P99]),
    ]
