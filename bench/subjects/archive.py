"""Moving events into Iceberg, and merging small files."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import plain, sample
from bench.goal import Goal
from bench.lake import BY_SIZE, NAME, clock_before, fill_days, opened
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run
from lakebed import SystemClock
from lakebed.disk import Disk
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import BUILT_IN, with_promoted
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive

RATE = Goal("≥ 400,000 rows/s", "archive, with the sort", least=400_000)
MERGE = Goal("≥ 1 GB/min", "compaction", least=1)
GOALS: Sequence[Goal] = (RATE, MERGE)
EVENTS, DAYS, BEFORE = 240_000, 7, 70
PIECES = 6  # commits whose files one compaction merges


def week(turn: int, events: int) -> pa.Table:
    """The events of one turn, as Arrow."""
    start = clock_before(BEFORE - DAYS * turn).now_us()
    bodies = [body for _, body in sample.spread(events, start, DAYS, turn * events // sample.BATCH)]
    return plain.table(bodies, turn * events, start).cast(SCHEMA)


def lakebed(directory: Path, events: int) -> Iterator[Figures]:
    """`archive()`: seal, read the log, promote, sort, write a file a day, sync, commit, verify, prune."""
    clock = clock_before(BEFORE)
    with opened(directory, clock=clock, **BY_SIZE) as (loop, analytics):
        for turn in count():
            loop.run(fill_days(analytics, clock, events, DAYS, turn * events // sample.BATCH))
            start = time.perf_counter()
            archived = loop.run(analytics.archive())
            seconds = time.perf_counter() - start
            assert archived.rows == events, f"{archived.rows} rows were archived, not {events}"
            yield {"rate": events / seconds}


def floor(directory: Path, events: int) -> Iterator[Figures]:
    """One Parquet file of the same rows and columns, as they come, zstd."""
    table = with_promoted(week(0, events), BUILT_IN, SqlEngine(threads=1, memory_bytes=1 << 31))
    while True:
        start = time.perf_counter()
        pq.write_table(table, directory / "floor.parquet", compression="zstd")
        yield {"rate": events / (time.perf_counter() - start)}


def pyiceberg(directory: Path, events: int) -> Iterator[Figures]:
    """pyiceberg's own append into a table partitioned by day: not sorted, not synced, nothing promoted."""
    from pyiceberg.catalog import load_catalog  # dear to import, and for this contender only
    from pyiceberg.transforms import DayTransform

    places = {"uri": f"sqlite:///{directory}/catalog.db", "warehouse": f"file://{directory}/warehouse"}
    catalog = load_catalog("bench", type="sql", **places)
    catalog.create_namespace("bench")
    rows = week(0, events)
    table = catalog.create_table("bench.events", schema=rows.schema)
    with table.update_spec() as spec:
        spec.add_field("timestamp", DayTransform(), "day")
    while True:
        start = time.perf_counter()
        table.append(rows)
        yield {"rate": events / (time.perf_counter() - start)}


async def _compacted(directory: Path, rows: pa.Table) -> Figures:
    archive = Archive(directory, NAME, Settings(), SystemClock(), Disk(), BUILT_IN)
    step = rows.num_rows // PIECES
    for piece in range(PIECES):
        await archive.append(rows.slice(piece * step, step), piece * step, (piece + 1) * step)
    start = time.perf_counter()
    compacted = await archive.compact()
    seconds = time.perf_counter() - start
    await archive.close()
    assert compacted.files_after < compacted.files_before, "there was nothing to merge"
    return {"rate": compacted.bytes_before / 1e9 / (seconds / 60)}


def compaction(directory: Path, events: int) -> Iterator[Figures]:
    """The small files of six commits over seven days become one a day."""
    rows = week(0, events)
    order = sorted(range(len(rows)), key=lambda number: number % PIECES)  # each commit has events of each day
    rows = rows.take(order).set_column(0, rows.schema.field("seq"), pa.array(range(len(rows)), pa.int64()))
    for turn in count():
        figures = asyncio.run(_compacted(directory / str(turn), rows))
        shutil.rmtree(directory / str(turn))
        yield figures


def rewriting(directory: Path, events: int) -> Iterator[Figures]:
    """The floor of merging: read the same Parquet files, sort, write one."""
    rows = week(0, events)
    step = rows.num_rows // PIECES
    for piece in range(PIECES):
        pq.write_table(rows.slice(piece * step, step), directory / f"{piece}.parquet", compression="zstd")
    files = sorted(directory.glob("*.parquet"))
    while True:
        start = time.perf_counter()
        merged = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("timestamp")
        pq.write_table(merged, directory / "merged", compression="zstd")
        yield {"rate": sum(file.stat().st_size for file in files) / 1e9 / ((time.perf_counter() - start) / 60)}


def rows(run: Run) -> list[Row]:
    """Archiving and compaction."""
    events = run.of(EVENTS, least=6_000)
    options = {"events": events}
    results = run.turns(
        [Contender(turns.__name__, turns, options) for turns in (lakebed, floor, pyiceberg, compaction, rewriting)]
    )
    rate, merge = results.get("lakebed", "rate"), results.get("compaction", "rate")
    peers = {"pyiceberg append, not sorted, not synced": results.get("pyiceberg", "rate")}
    work, floor_rate = f"archive {events:,} events of 7 days", results.get("floor", "rate")
    return [
        Row("archive", work, "rows/s", rate, peers, floor_rate, "pyarrow write_table", [RATE]),
        Row(
            "archive",
            "compaction",
            "GB/min",
            merge,
            {},
            results.get("rewriting", "rate"),
            "read, sort, write one",
            [MERGE],
        ),
    ]
