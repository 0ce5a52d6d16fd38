"""Bytes on disk of an event, in each tier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import sample
from bench.goal import Goal
from bench.lake import NAME, UNSEALED, fill, opened
from bench.measure import Contender, Failed, Figures, Found, Samples
from bench.row import Row
from bench.run import Run
from bench.stored import size_of

SMALL = Goal("≤ 40 bytes", "bytes an event on disk, archive", most=40)
GOALS: Sequence[Goal] = (SMALL,)
EVENTS = 100_000


def lakebed(directory: Path, events: int) -> Iterator[Figures]:
    """The log as it is written, and sealed."""
    bodies = sample.batches(events)
    count = len(bodies) * sample.BATCH
    with opened(directory / "log", **UNSEALED) as (loop, analytics):
        loop.run(fill(analytics, bodies))
        log = size_of(directory / "log" / NAME / "log", "*.log")
    with opened(directory / "sealed") as (loop, analytics):
        loop.run(fill(analytics, bodies))
        loop.run(analytics.archive())  # seals first, and the sealed files stay for a week
    sealed = size_of(directory / "sealed" / NAME / "log", "*.parquet")
    yield {"json": sum(map(len, bodies)) / count, "log": log / count, "sealed": sealed / count}


def rows(run: Run) -> list[Row]:
    """A row a tier. Sizes do not vary: they are taken once."""
    stored = run.stored
    results = run.turns([Contender("lakebed", lakebed, {"events": run.of(EVENTS)})], 1)

    def kept(name: str) -> Found:
        if name not in stored.bytes:
            return stored.failures.get(name) or Failed(f"{name} was not measured")
        return Samples((stored.bytes[name] / stored.events,))

    peers = {
        "DuckDB table": kept("duckdb"),
        "chDB MergeTree": kept("chdb"),
        "SQLite, raw_events": kept("raw_events"),
    }
    json = {"JSON as it was sent": results.get("lakebed", "json")}
    floor_is = "one sorted Parquet file, zstd"
    return [
        Row("disk", "bytes an event, log", "bytes", results.get("lakebed", "log"), json),
        Row("disk", "bytes an event, sealed log", "bytes", results.get("lakebed", "sealed"), json),
        Row("disk", "bytes an event, archive", "bytes", kept("lakebed"), peers, kept("parquet"), floor_is, [SMALL]),
        Row("disk", "bytes an event, rollups (storage.db)", "bytes", kept("lakebed sqlite")),
    ]
