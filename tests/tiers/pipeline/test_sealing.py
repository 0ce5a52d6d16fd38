import errno
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebed.clock import from_us
from lakebed.disk import Disk
from lakebed.errors import LogCorrupted, LogUnavailable
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.promotions import BUILT_IN, as_promotions, with_promoted
from lakebed.events.validation import encode_object
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.pipeline.sealing import SealedFile, seal, sealed_path
from lakebed.tiers.pipeline.segment import log_path, scan
from tests.disks import FaultyDisk
from tests.tiers.pipeline.logs import ENGINE, NOW, batch_of, event, events, held, ids, opened, table, write_segment

PROMOTIONS = as_promotions({"revenue": float, "at": datetime, "vip": bool, "price": Decimal, "n": int, "text": str})
PROPERTIES = [
    {},
    {"revenue": 9.5, "vip": True, "n": 3, "price": "1.25", "text": "x", "at": "2026-01-01T10:00:00+02:00"},
    {"revenue": "nan", "vip": "true", "n": 1.5, "price": "no", "text": 7, "at": "never"},
    {"revenue": None, "vip": 0, "n": "12", "price": 1e30, "text": {"a": [1]}, "at": 5},
    {"quantity": 2, "unit": "MB", "sku": "s", "organization_id": "o", "duration_ms": 1.5, "status_code": 200},
    {"path": "/a", "method": "GET", "text": "quote ' \" \\ \u0000 ü 😀", "revenue": 1e308, "n": 2**53},
]


def mixed(seq):
    """Events with and without each field, with properties of every kind."""
    made = [
        event(
            f"m{seq + i}",
            user_id=f"u{i}" if i % 2 else None,
            session_id="s" if i % 3 else None,
            timestamp=None if i % 2 else "2020-02-29T12:00:00.123456Z",
            properties=encode_object("properties", properties),
            context=encode_object("context", {"ip": "::1"} if i % 2 else None),
        )
        for i, properties in enumerate(PROPERTIES)
    ]
    return batch_of(made, seq, NOW + seq)


def frames(path):
    return [frame.batch for frame in scan(path).frames]


def test_rows_order_and_promoted_columns_are_the_same(tmp_path):
    """A sealed file has exactly the rows of the log in its order, and promoted columns as computed on the fly."""
    path, _, _ = write_segment(tmp_path, [["a"]])
    batches = [mixed(0), mixed(6), mixed(12)]
    file = seal(Disk(), path, batches, PROMOTIONS, ENGINE)
    before = pa.Table.from_batches(batches)
    on_the_fly = with_promoted(before, PROMOTIONS, ENGINE)
    sealed = pq.read_table(file.path, page_checksum_verification=True)
    assert sealed.select(list(BASE_COLUMNS)).cast(SCHEMA).equals(before)
    assert sealed.to_pylist() == on_the_fly.to_pylist()
    assert sealed.column_names == [*BASE_COLUMNS, *(promotion.name for promotion in PROMOTIONS)]
    assert sealed["revenue"].to_pylist()[:6] == [None, 9.5, None, None, None, 1e308]


def test_a_sealed_file_describes_its_contents(tmp_path):
    """A SealedFile has the file's seqs, times, size and columns, the same from sealing as read from the footer."""
    path, _, _ = write_segment(tmp_path, [["a"]], first_seq=6)
    file = seal(Disk(), path, [mixed(6), mixed(12)], BUILT_IN, ENGINE)
    assert file == SealedFile.read(sealed_path(tmp_path, 6))
    assert (file.first_seq, file.end_seq, file.bytes) == (6, 18, file.path.stat().st_size)
    assert (file.first_received, file.last_received) == (NOW + 6, NOW + 12)
    assert from_us(file.min_timestamp) == datetime(2020, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    assert file.max_timestamp == NOW + 12
    assert file.columns == {*BASE_COLUMNS, *(promotion.name for promotion in BUILT_IN)}


def test_bounds_before_1970_and_over_several_row_groups(tmp_path):
    """Times before 1970 and later row groups count: the bounds are those of all rows."""
    path, _, _ = write_segment(tmp_path, [["a"]])
    count = 128_001
    batch = batch_of(events(None, now=NOW) * count, 0, NOW)
    times = pa.array([-(10**15) + i for i in range(count)], pa.int64()).view(SCHEMA.field("timestamp").type)
    ids_ = pa.array([str(i) for i in range(count)])
    batch = batch.set_column(8, SCHEMA.field("timestamp"), times).set_column(1, SCHEMA.field("message_id"), ids_)
    file = seal(Disk(), path, [batch], (), ENGINE)
    assert pq.read_metadata(file.path).num_row_groups == 2
    assert (file.min_timestamp, file.max_timestamp) == (-(10**15), -(10**15) + count - 1)
    assert (file.first_seq, file.end_seq) == (0, count)


def test_the_log_file_is_removed_last(tmp_path):
    """Parquet is synced, renamed and its directory synced before the log file is deleted: a crash leaves one."""
    disk = FaultyDisk()
    path, _, _ = write_segment(tmp_path, [["a"]])
    seal(disk, path, frames(path), (), ENGINE)
    name = path.with_suffix(".parquet").name
    assert disk.calls == [
        ("sync_file", name + ".tmp"),
        ("replace", name),
        ("sync_directory", tmp_path.name),
        ("remove", path.name),
        ("sync_directory", tmp_path.name),
    ]


@pytest.mark.parametrize(
    ("operation", "after"),
    [("sync_file", 0), ("replace", 0), ("sync_directory", 0), ("remove", 0), ("sync_directory", 1)],
)
async def test_a_failure_is_visible_loses_nothing_and_passes(tmp_path, operation, after):
    """If any step of sealing fails, `problems` names it, each event stays readable once, and the next try succeeds."""
    disk = FaultyDisk()
    name = ".log" if operation == "remove" else ".parquet" if operation != "sync_directory" else tmp_path.name
    async with opened(tmp_path, disk=disk) as log:
        for group in ("ab", "cd"):
            await log.append(events(*group))
            await log.flush()
            disk.fail(operation, errno.EIO, name=name, after=after)
            with pytest.raises(LogUnavailable, match="Input/output"):
                await log.seal()
            assert "Input/output" in log.problems["seal"]
            assert ids(log)[-2:] == list(group)
            disk.heal()
            assert await log.seal() == log.next_seq
            assert log.problems == {}
            assert held(log) == list(enumerate("abcd"[: log.next_seq]))
    async with opened(tmp_path) as log:
        assert ids(log) == list("abcd")


async def test_a_sidecar_that_cannot_be_written_is_only_a_delay(tmp_path):
    """When the .ids file cannot be written sealing is a problem, and the next try succeeds."""
    obstacle = sealed_path(tmp_path, 0).with_suffix(".ids")
    async with opened(tmp_path) as log:
        await log.append(events("a"))
        obstacle.mkdir()
        with pytest.raises(LogUnavailable):
            await log.seal()
        assert ids(log) == ["a"]
        obstacle.rmdir()
        await log.seal()
        assert (ids(log), log.problems) == (["a"], {})
        assert (await log.append(events("a")))[0].status == "duplicate"


async def test_a_failure_of_the_engine_is_visible_too(tmp_path):
    """Sealing computes columns with DuckDB: its failure is a problem like the disk's, also in the background."""

    class Broken(SqlEngine):
        def arrow(self, *_args, **_tables):
            raise MemoryError("out of memory")

    async with opened(tmp_path, engine=Broken(threads=1, memory_bytes=1 << 20), segment_events=1) as log:
        for name in "abc":
            await log.append(events(name))
        with pytest.raises(LogUnavailable, match="out of memory"):
            await log.seal()
        assert "out of memory" in log.problems["seal"]
        assert ids(log) == list("abc")
    async with opened(tmp_path) as log:
        await log.seal()
        assert ids(log) == list("abc")


async def test_full_segments_are_sealed_without_being_asked(tmp_path):
    """A rolled segment becomes Parquet in the background; sealed bytes are counted, in this opening and the next."""
    async with opened(tmp_path, segment_events=2, promotions=()) as log:
        for i in range(7):
            await log.append(events(f"m{i}"))
        assert await log.seal() == 7
        assert [path.name for path in tmp_path.glob("*.log")] == []
        counted = log.sealed_bytes
        assert counted == sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
        assert (log.tail_bytes, log.start_seq) == (0, 0)
    async with opened(tmp_path, promotions=()) as log:
        assert log.sealed_bytes == counted


async def test_sealing_an_empty_log_does_nothing(tmp_path):
    """Without events, sealing creates no file and raises no error, at the start and a second time."""
    async with opened(tmp_path) as log:
        assert await log.seal() == 0
        await log.append(events("a"))
        assert await log.seal() == 1
        assert await log.seal() == 1
        assert len(list(tmp_path.glob("*.parquet"))) == 1


async def test_events_of_one_group_keep_their_time_and_order(tmp_path):
    """Tail and sealed file give the same table for the same events, sealed once, sealed twice, and reopened."""
    async with opened(tmp_path) as log:
        for i in range(4):
            await log.append(events(f"a{i}", f"b{i}"))
        before = table(log)
        await log.seal()
        assert table(log).equals(before)
    async with opened(tmp_path) as log:
        assert table(log).equals(before)


@pytest.mark.parametrize("damage", ["cut", "empty", "renamed", "magic"])
def test_a_sealed_file_that_does_not_read_back_is_corruption(tmp_path, damage):
    """A sealed file that is cut, empty or under another's name is LogCorrupted, with its path."""
    path, _, _ = write_segment(tmp_path, [["a", "b"]])
    file = seal(Disk(), path, frames(path), (), ENGINE)
    data = file.path.read_bytes()
    bad = sealed_path(tmp_path, 5) if damage == "renamed" else file.path
    changed = {"cut": data[:-9], "empty": b"", "renamed": data, "magic": b"XXXX" + data[4:-4] + b"XXXX"}
    bad.write_bytes(changed[damage])
    with pytest.raises(LogCorrupted) as caught:
        SealedFile.read(bad)
    assert caught.value.path == bad


async def test_events_that_a_failed_sync_left_in_doubt_are_sealed_before_a_checkpoint_passes_them(tmp_path):
    """durability="os": after a failed sync the file's contents are unknown, so `sync` seals its events from memory.

    Else a checkpoint would include events that a power loss removes, and the object would not open again.
    """
    disk = FaultyDisk()
    options = {"durability": "os", "promotions": ()}
    async with opened(tmp_path, disk=disk, **options) as log:
        await log.append(events("a", "b"))
        disk.fail("sync", name=".log")
        with pytest.raises(LogUnavailable):
            await log.sync()
        disk.fail("sync_file", name=".parquet")
        with pytest.raises(LogUnavailable):
            await log.sync()
        await log.sync()
        assert not log_path(tmp_path, 0).exists(), "it is in a Parquet file, which was synced"
        assert disk.calls[-1][0] == "sync_directory"
        await log.append(events("c"))
        await log.sync()
    async with opened(tmp_path, **options) as log:
        assert held(log) == [(0, "a"), (1, "b"), (2, "c")]
