"""Processor time of the parts of taking an event: where a profile of ingest begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import plain, sample
from bench.goal import Goal
from bench.lake import PROMOTE
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run
from lakebed.events.decoding import decode_batch
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import as_promotions, with_promoted
from lakebed.sql_engine import SqlEngine

GOALS: Sequence[Goal] = ()
EVENTS = 20_000


def _us(work: Callable[[], Any], events: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / events * 1e6


def lakebed(_: Path, events: int) -> Iterator[Figures]:
    """From JSON to admitted columns; the promoted columns of a segment that is sealed."""
    bodies = sample.batches(events)
    rows = plain.table(bodies).cast(SCHEMA)
    engine, promotions = SqlEngine(threads=1, memory_bytes=1 << 31), as_promotions(PROMOTE)
    while True:
        yield {
            "columns": _us(lambda: [decode_batch(body, sample.NOW_US) for body in bodies], events),
            "promote": _us(lambda: with_promoted(rows, promotions, engine), events),
        }


def floor(_: Path, events: int) -> Iterator[Figures]:
    """The same, of the floor."""
    bodies = sample.batches(events)
    plain.arrow(plain.decode(bodies[0]), 0)  # the first array of a process imports pandas, where that is installed
    while True:
        yield {"columns": _us(lambda: [plain.arrow(plain.decode(body), 0) for body in bodies], events)}


def rows(run: Run) -> list[Row]:
    """A row a part."""
    options = {"events": run.of(EVENTS)}
    results = run.turns([Contender("lakebed", lakebed, options), Contender("floor", floor, options)])

    def part(work: str, figure: str, floor_is: str = "") -> Row:
        floor_us = results.get("floor", figure) if floor_is else None
        return Row("parts", f"part: {work}", "µs/event", results.get("lakebed", figure), {}, floor_us, floor_is)

    return [
        part("decode, check and build the columns of 1,000", "columns", "decode + Arrow, times not read"),
        part("compute ten promoted columns", "promote"),
    ]
