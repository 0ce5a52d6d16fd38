import asyncio
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from lakebed.errors import (
    ArchiveConflict,
    InvalidName,
    ObjectClosed,
    PromotionConflict,
    SnapshotExpired,
)
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.promotions import BUILT_IN, Promotion, as_promotions
from tests.tiers.archive.archive_fixtures import DAY, PROMOTIONS, START, events, open_archive, read, seqs, stored

pytestmark = pytest.mark.integration  # a real table


@pytest.fixture
async def archive(tmp_path):
    archive = open_archive(tmp_path)
    yield archive
    assert await archive.check() == []
    await archive.close()


async def test_nothing_archived_yet(archive, tmp_path):
    """Before the first append the archive is empty, has no file, and can be read without an error."""
    assert not archive.exists()
    assert await archive.watermark() == 0
    async with archive.pin() as view:
        assert (view.snapshot_id, view.watermark, view.files) == (None, 0, ())
    assert await archive.snapshots() == []
    assert (await archive.compact()).commits == 0
    assert (await archive.expire()).snapshots == ()
    assert (await archive.collect_garbage()).paths == ()
    assert (await archive.erase("user_id", ["u1"])).rows == 0
    with pytest.raises(SnapshotExpired):
        await archive.tag("now")
    with pytest.raises(SnapshotExpired):
        await archive.untag("now")
    for absent in (1, "tag"):
        with pytest.raises(SnapshotExpired):
            async with archive.pin(absent):
                pass
    assert not archive.exists()
    assert stored(tmp_path) == []


async def test_append_moves_rows_and_watermark_together(archive):
    """After an append the view has the rows, once, and the watermark is their end."""
    assert await archive.append(events(0, 10), 0, 10) is True
    assert archive.exists()
    assert await archive.watermark() == 10
    assert await seqs(archive) == list(range(10))


async def test_append_twice_adds_nothing(archive):
    """Appending a batch that is already archived, alone or within more events, returns False and changes nothing."""
    await archive.append(events(0, 10), 0, 10)
    await archive.append(events(10, 20), 10, 20)
    before = await archive.snapshots()
    assert await archive.append(events(0, 10), 0, 10) is False
    assert await archive.append(events(10, 20), 10, 20) is False
    assert await archive.append(events(20, 20), 20, 20) is False
    assert await archive.snapshots() == before
    assert await seqs(archive) == list(range(20))


async def test_append_elsewhere_is_a_conflict(archive):
    """A batch that starts before or after the watermark is an error: it would duplicate events or leave a gap."""
    await archive.append(events(0, 10), 0, 10)
    for start, end in ((5, 15), (11, 20), (0, 11)):
        with pytest.raises(ArchiveConflict, match="the archive ends at event 10") as error:
            await archive.append(events(start, end), start, end)
        assert error.value.watermark == 10
    assert await seqs(archive) == list(range(10))


@pytest.mark.parametrize(
    "table",
    [
        events(0, 9),
        events(1, 11),
        events(0, 11),
        events(0, 0),
        pa.concat_tables([events(0, 5), events(4, 9)]),
        pa.concat_tables([events(0, 1), events(2, 3), events(2, 9), events(9, 10)]),
    ],
)
async def test_append_takes_exactly_its_events(archive, table):
    """Rows that are not the events [start, end), each once, are an error before anything is written."""
    with pytest.raises(ArchiveConflict, match="does not have exactly the events"):
        await archive.append(table, 0, 10)
    assert not archive.exists()


async def test_append_takes_any_order(archive):
    """The order of the rows does not matter: files are sorted by timestamp, then seq."""
    shuffled = events(0, 40, at=lambda seq: START + (seq * 7919) % 40 // 2).take(pa.array([*range(39, -1, -1)]))
    await archive.append(shuffled, 0, 40)
    async with archive.pin() as view:
        (file,) = view.files
    times = list(zip(*(read(file.path)[name].to_pylist() for name in ("timestamp", "seq")), strict=True))
    assert times == sorted(times)
    assert len(times) == 40


async def test_manifests_describe_the_files(archive):
    """A view's files carry exact bounds, one day each, in order of time."""
    await archive.append(events(0, 12), 0, 12)
    async with archive.pin() as view:
        files = view.files
    assert [file.rows for file in files] == [4, 4, 4]
    assert [(file.first_seq, file.last_seq) for file in files] == [(0, 3), (4, 7), (8, 11)]
    for day, file in enumerate(files):
        assert file.min_timestamp == START + day * DAY
        assert file.max_timestamp == START + day * DAY + 3 * DAY // 4
        assert (file.min_received, file.max_received) == (START + day * 4, START + day * 4 + 3)
        assert file.columns == {*BASE_COLUMNS, *(promotion.name for promotion in PROMOTIONS)}
        assert Path(file.path).stat().st_size == file.bytes
        assert f"timestamp_day=2026-01-0{day + 1}" in file.path


async def test_days_before_1970_and_at_the_edges(archive):
    """Days are counted in UTC, by the floor, also before 1970 and in the years 1 and 9999."""
    timestamps = [-62_135_596_800_000_000, -1, 0, DAY - 1, DAY, 253_402_300_799_999_999]
    await archive.append(events(0, 6, at=timestamps.__getitem__), 0, 6)
    async with archive.pin() as view:
        bounds = [(file.min_timestamp, file.max_timestamp, file.path.split("=")[1][:10]) for file in view.files]
    assert bounds == [
        (timestamps[0], timestamps[0], "0001-01-01"),
        (-1, -1, "1969-12-31"),
        (0, DAY - 1, "1970-01-01"),
        (DAY, DAY, "1970-01-02"),
        (timestamps[5], timestamps[5], "9999-12-31"),
    ]
    assert (await archive.compact()).commits == 0


async def test_schema_has_our_field_ids(archive, tmp_path):
    """Base columns have the field ids 1 to 13, promotions follow in their order; in the table and in the files."""
    await archive.append(events(0, 4), 0, 4)
    async with archive.pin() as view:
        schema = read(view.files[0].path).schema
    ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in schema}
    assert ids == {name: number for number, name in enumerate([*SCHEMA.names, *(p.name for p in PROMOTIONS)], 1)}
    from pyiceberg.catalog.sql import SqlCatalog

    with SqlCatalog("lakebed", uri=f"sqlite:///{tmp_path}/shop/archive/catalog.db") as catalog:
        table = catalog.load_table("lakebed.events")
        assert {field.name: field.field_id for field in table.schema().fields} == ids
        assert [str(field.transform) for field in table.sort_order().fields] == ["identity", "identity"]
        assert [field.source_id for field in table.sort_order().fields] == [9, 1]
        assert table.metadata.properties["commit.retry.num-retries"] == "0"


async def test_promotion_midway(tmp_path):
    """A property promoted later gets the next field id; old files lack it until they are compacted, with its values."""
    first = open_archive(tmp_path, promotions=BUILT_IN)
    await first.append(events(0, 4), 0, 4)
    await first.close()
    later = as_promotions({"revenue": float, "two words": str})
    second = open_archive(tmp_path, promotions=later)
    await second.append(events(4, 6, at=lambda _: START), 4, 6)
    async with second.pin() as view:
        assert ["revenue" in file.columns for file in view.files] == [False, True]
    assert (await second.compact()).files_before == 2
    async with second.pin() as view:
        (file,) = view.files
        assert {"revenue", "two words"} <= file.columns
    rows = read(file.path).sort_by("seq")
    assert rows["revenue"].to_pylist() == [seq + 0.5 for seq in range(6)]
    assert rows["two words"].to_pylist() == [None] * 6
    assert rows.schema.field("revenue").metadata[b"PARQUET:field_id"] == b"22"
    assert await second.check() == []
    await second.close()


async def test_promotion_that_is_no_longer_declared_is_still_computed(tmp_path):
    """A column of the table is filled in every file, also when the opened object does not promote it."""
    first = open_archive(tmp_path)
    await first.append(events(0, 4), 0, 4)
    await first.close()
    second = open_archive(tmp_path, promotions=BUILT_IN)
    await second.append(events(4, 8), 4, 8)
    async with second.pin() as view:
        assert [read(file.path)["revenue"].to_pylist()[0] for file in view.files] == [0.5, 4.5]
    await second.close()


async def test_promotion_never_changes_its_type(tmp_path):
    """A property with a column of another type is an error, and nothing is appended."""
    first = open_archive(tmp_path)
    await first.append(events(0, 4), 0, 4)
    await first.close()
    second = open_archive(tmp_path, promotions=(*BUILT_IN, Promotion("revenue", "str")))
    with pytest.raises(PromotionConflict, match="revenue is a column of type double"):
        await second.append(events(4, 8), 4, 8)
    assert await second.watermark() == 4
    await second.close()


@pytest.mark.parametrize("first", [True, False])
async def test_promotions_with_odd_names(tmp_path, first):
    """Columns keep the property's name with its dots, blanks and dollars, from the start or added later."""
    odd = as_promotions({"a.b": int, "a b": str, "c$-d": float, "day": bool})
    if not first:
        plain = open_archive(tmp_path)
        await plain.append(events(0, 4), 0, 4)
        await plain.close()
    again = open_archive(tmp_path, promotions=odd)
    rows = events(0, 8, at=lambda seq: START + seq)
    text = pa.array([f'{{"a.b": {seq}, "a b": "x", "c$-d": 0.5, "day": true}}' for seq in range(8)])
    rows = rows.set_column(11, rows.schema.field(11), text)
    start = 0 if first else 4
    await again.append(rows.slice(start, 2), start, start + 2)
    await again.append(rows.slice(start + 2, 2), start + 2, start + 4)
    await again.compact()
    async with again.pin() as view:
        table = read(view.files[-1].path).sort_by("seq")
        assert {"a.b", "a b", "c$-d", "day"} <= view.files[-1].columns
    assert table.select(["a.b", "a b", "c$-d", "day"]).slice(table.num_rows - 1).to_pylist() == [
        {"a.b": start + 3, "a b": "x", "c$-d": 0.5, "day": True}
    ]
    assert await again.check() == []
    await again.close()


async def test_promotions_that_differ_in_case(archive, tmp_path):
    """SQL cannot tell apart two columns that differ only in case: the second is an error."""
    await archive.append(events(0, 4), 0, 4)
    other = open_archive(tmp_path, promotions=as_promotions({"Revenue": float}))
    with pytest.raises(PromotionConflict, match="differ only in case"):
        await other.append(events(4, 8), 4, 8)
    await other.close()


async def test_pin_of_a_snapshot_and_of_a_tag(archive):
    """A snapshot is read again by id or by tag; a tag can be moved to another snapshot; a removed tag is gone."""
    await archive.append(events(0, 4), 0, 4)
    await archive.tag("first")
    await archive.append(events(4, 8), 4, 8)
    first, second = await archive.snapshots()
    assert (first.tags, second.tags) == (("first",), ())
    assert [(snapshot.watermark, snapshot.rows, snapshot.operation) for snapshot in (first, second)] == [
        (4, 4, "append"),
        (8, 8, "append"),
    ]
    assert await seqs(archive, "first") == await seqs(archive, first.id) == [0, 1, 2, 3]
    await archive.tag("first", second.id)
    assert await seqs(archive, "first") == list(range(8))
    await archive.untag("first")
    for absent in ("first", "main2", 12345):
        with pytest.raises(SnapshotExpired) as error:
            await seqs(archive, absent)
        assert error.value.snapshot == absent
    with pytest.raises(SnapshotExpired):
        await archive.untag("first")
    with pytest.raises(SnapshotExpired):
        await archive.tag("x", 12345)


@pytest.mark.parametrize("name", ["", "main", "../x", "a b", "a/b", "-x", "x" * 101])
async def test_tag_names_are_words(archive, name):
    """Tags are plain words, and never the branch that the table lives on."""
    await archive.append(events(0, 1), 0, 1)
    with pytest.raises(InvalidName):
        await archive.tag(name)


async def test_untag_leaves_the_branch_alone(archive):
    """`untag` removes tags, not branches."""
    await archive.append(events(0, 1), 0, 1)
    with pytest.raises(SnapshotExpired):
        await archive.untag("main")
    assert await archive.watermark() == 1


async def test_pin_does_not_wait_for_work(tmp_path):
    """The newest state is pinned from memory while the archive's thread is busy."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    release = threading.Event()
    busy = asyncio.ensure_future(archive._run(lambda _: release.wait()))
    try:
        async with asyncio.timeout(5), archive.pin() as view:
            assert view.watermark == 4
    finally:
        release.set()
        await busy
    await archive.close()


async def test_cancelled_append_happens_wholly(archive):
    """Cancelling an append does not stop its transaction halfway, and no other transaction runs in between."""
    task = asyncio.ensure_future(archive.append(events(0, 10), 0, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await archive.append(events(0, 10), 0, 10) is False
    assert await seqs(archive) == list(range(10))


async def test_cancelled_pin_is_released(archive):
    """A pin whose await was cancelled does not protect files for ever."""
    await archive.append(events(0, 4), 0, 4)
    (snapshot,) = await archive.snapshots()
    task = asyncio.ensure_future(archive.pin(snapshot.id).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await archive.snapshots()
    assert archive._pins.paths() == set()


async def test_close_leaves_nothing(tmp_path):
    """After close there is no thread and no descriptor, and every call raises ObjectClosed."""
    descriptors = set(Path("/proc/self/fd").iterdir())
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.compact()
    assert "lakebed-archive-shop_0" in {thread.name for thread in threading.enumerate()}
    await archive.close()
    await archive.close()
    assert not [thread.name for thread in threading.enumerate() if "archive" in thread.name or "Pool" in thread.name]
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors
    for call in (archive.watermark, archive.snapshots, archive.compact, archive.check, archive.expire):
        with pytest.raises(ObjectClosed):
            await call()
    with pytest.raises(ObjectClosed):
        await archive.append(events(4, 8), 4, 8)


@pytest.mark.parametrize("disorder", ["nearly sorted", "reversed", "one late event", "shuffled"])
async def test_rows_of_many_chunks_are_sorted(tmp_path, disorder):
    """However late an event arrives, each file has its day sorted, and nothing is lost."""
    count = 3000
    steps = {
        "nearly sorted": lambda seq: seq ^ 1,
        "reversed": lambda seq: count - seq,
        "one late event": lambda seq: 7 if seq == count - 1 else seq + 10,
        "shuffled": lambda seq: seq * 1009 % count,
    }[disorder]
    table = events(0, count, at=lambda seq: START + steps(seq) * DAY // 1000)
    chunked = pa.concat_tables([table.slice(at, 100) for at in range(0, count, 100)])
    archive = open_archive(tmp_path)
    await archive.append(chunked, 0, count)
    async with archive.pin() as view:
        tables = [read(file.path) for file in view.files]
    for rows in tables:
        keys = list(zip(rows["timestamp"].cast(pa.int64()).to_pylist(), rows["seq"].to_pylist(), strict=True))
        assert keys == sorted(keys)
    back = pa.concat_tables(tables).sort_by("seq").select(SCHEMA.names)
    assert back.cast(SCHEMA).equals(table)
    await archive.close()
