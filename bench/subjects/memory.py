"""Peak memory while events are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import memory, sample
from bench.goal import Goal
from bench.lake import opened
from bench.measure import Contender, Figures
from bench.peers import duck
from bench.row import Row
from bench.run import Run

GOALS: Sequence[Goal] = ()
EVENTS = 260_000  # more than one segment, so that sealing takes its part
_MB = 1e6


def lakebed(directory: Path, events: int) -> Iterator[Figures]:
    """Batches of 1,000, with the default settings: the log is sealed meanwhile."""
    sample.batch(0)
    with opened(directory) as (loop, analytics):
        before = memory.resident_bytes()

        async def batch(body: bytes) -> None:
            await analytics.batch(body)

        for number in range(events // sample.BATCH):
            loop.run(batch(sample.batch(number)))
    yield {"peak": memory.peak_bytes() / _MB, "before": before / _MB}


def duckdb(directory: Path, events: int) -> Iterator[Figures]:
    """The same into DuckDB."""
    table = duck.Table(directory / "events.duckdb")
    for number in range(events // sample.BATCH):
        table.take(sample.batch(number))
    yield {"peak": memory.peak_bytes() / _MB}


def rows(run: Run) -> list[Row]:
    """The peak, and what the process holds before its first event."""
    events = run.of(EVENTS)
    options = {"events": events}
    results = run.turns([Contender(turns.__name__, turns, options, fresh=True) for turns in (lakebed, duckdb)])
    peers = {"DuckDB table, checkpointing off": results.get("duckdb", "peak")}
    base_mb = results.get("lakebed", "before")
    work = f"peak memory while taking {events:,} events"
    return [Row("memory", work, "MB", results.get("lakebed", "peak"), peers, base_mb, "open, before its first event")]
