"""A query over a range is answered from exactly the events of that range, in whichever tier they are."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lakebed.errors import ArchiveConflict, ArchiveUnavailable, LogCorrupted
from lakebed.query.range_queries import RangeQueries
from tests.query.parts import opened, us

pytestmark = pytest.mark.integration  # an object in each state

MARCH_1 = us("2026-03-01")
DAY = 86_400_000_000
SEQS = "SELECT seq FROM events ORDER BY seq"
NAMES = "SELECT user_id, min(seq) AS seq FROM events WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY 2"


async def fill(parts):
    """Sixty events of six days: thirty-five archived, thirty of these gone from the log, ten in the tail."""
    for day in range(6):
        await parts.track(
            [
                {"event": "e", "user_id": f"u{day}-{number % 3}", "timestamp": MARCH_1 + day * DAY + number}
                for number in range(10)
            ]
        )
        parts.clock.advance(60)
        if day in (2, 4):
            await parts.seal()
    await parts.to_archive(35)
    await parts.pipeline.prune(35)
    assert parts.pipeline.start_seq == 30
    return RangeQueries(parts.history, parts.pipeline, parts.archive, parts.engine)


@pytest.mark.parametrize(
    ("start", "end"), [(0, 60), (0, 30), (7, 8), (29, 31), (31, 34), (33, 52), (49, 51), (55, 60), (60, 60), (12, 12)]
)
async def test_exactly_the_range(tmp_path, start, end):
    """Archive, sealed files and tail give each event of [start, end) once, and no other one."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        excerpts = await fill(parts)
        seqs, users = await excerpts.ask(start, end, [SEQS, NAMES])
        assert seqs["seq"].to_pylist() == list(range(start, end))
        first = {}
        for event in parts.model[start:end]:
            first.setdefault(event["person"], event["seq"])
        assert list(zip(*users.to_pydict().values(), strict=True)) == list(first.items())
        with pytest.raises(ValueError, match="the log ends at 60"):
            await excerpts.ask(start, 61, [SEQS])


async def test_erased_events_are_not_missed(tmp_path):
    """Erased events are missing without an error."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        excerpts = await fill(parts)
        await parts.archive.erase("user_id", ["u1-0"])
        (seqs,) = await excerpts.ask(5, 25, [SEQS])
        assert seqs["seq"].to_pylist() == [seq for seq in range(5, 25) if parts.model[seq]["person"] != "u1-0"]


async def test_a_file_that_lost_events_is_no_answer(tmp_path):
    """An archived file with an event less than its snapshot says, or none at all, is an error and not fewer people."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        excerpts = await fill(parts)
        async with parts.archive.pin() as archived:
            path = Path(next(file.path for file in archived.files if file.first_seq == 10))
        pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
        with pytest.raises(ArchiveConflict, match="19 rows for the 20 events from 5 to 24"):
            await excerpts.ask(5, 25, [SEQS])
        path.unlink()
        with pytest.raises(ArchiveUnavailable):
            await excerpts.ask(5, 25, [SEQS])


@pytest.mark.parametrize("name", ["user_id", "properties"])
async def test_a_changed_byte_of_the_log_is_no_answer(tmp_path, name):
    """Whether or not DuckDB could read the rest: the error names the file, and no identity changes."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        excerpts = await fill(parts)
        with parts.pipeline.view() as log:
            path = log.files[0].path
        group = pq.ParquetFile(path).metadata.row_group(0)
        column = next(chunk for chunk in map(group.column, range(group.num_columns)) if chunk.path_in_schema == name)
        content = bytearray(path.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
        path.write_bytes(content)
        with pytest.raises(LogCorrupted, match="is damaged"):
            await excerpts.ask(25, 60, [NAMES])
