import asyncio
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_fixtures import DAY, PROMOTIONS, START, events, open_archive, read, seqs, stored

from lakebed.clock import ManualClock
from lakebed.errors import (
    ArchiveConflict,
    ArchiveUnavailable,
    FormatTooNew,
    InvalidName,
    ObjectClosed,
    PromotionConflict,
    QueryRefused,
    SnapshotExpired,
)
from lakebed.events import BASE_COLUMNS, SCHEMA
from lakebed.promotions import BUILT_IN, Promotion, as_promotions


@pytest.fixture
async def archive(tmp_path):
    archive = open_archive(tmp_path)
    yield archive
    assert await archive.check() == []
    await archive.close()


async def test_nothing_archived_yet(archive, tmp_path):
    """Before the first append the archive is empty, costs no file, and asking it is not an error."""
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
    """A batch that is already archived, wholly or as part of more, is answered with False and changes nothing."""
    await archive.append(events(0, 10), 0, 10)
    await archive.append(events(10, 20), 10, 20)
    before = await archive.snapshots()
    assert await archive.append(events(0, 10), 0, 10) is False
    assert await archive.append(events(10, 20), 10, 20) is False
    assert await archive.append(events(20, 20), 20, 20) is False
    assert await archive.snapshots() == before
    assert await seqs(archive) == list(range(20))


async def test_append_elsewhere_is_a_conflict(archive):
    """A batch that starts before or after the watermark is refused: it would double events or leave a gap."""
    await archive.append(events(0, 10), 0, 10)
    for start, end in ((5, 15), (11, 20), (0, 11)):
        with pytest.raises(ArchiveConflict, match="the archive is at 10") as error:
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
    """Rows that are not the events [start, end), each once, are refused before anything is written."""
    with pytest.raises(ArchiveConflict, match="are not the events"):
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


async def test_files_say_what_they_hold(archive):
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
    at = [-62_135_596_800_000_000, -1, 0, DAY - 1, DAY, 253_402_300_799_999_999]
    await archive.append(events(0, 6, at=at.__getitem__), 0, 6)
    async with archive.pin() as view:
        found = [(file.min_timestamp, file.max_timestamp, file.path.split("=")[1][:10]) for file in view.files]
    assert found == [
        (at[0], at[0], "0001-01-01"),
        (-1, -1, "1969-12-31"),
        (0, DAY - 1, "1970-01-01"),
        (DAY, DAY, "1970-01-02"),
        (at[5], at[5], "9999-12-31"),
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
    """A column, once there, is filled in every file, whatever this opening of the object promotes."""
    first = open_archive(tmp_path)
    await first.append(events(0, 4), 0, 4)
    await first.close()
    second = open_archive(tmp_path, promotions=BUILT_IN)
    await second.append(events(4, 8), 4, 8)
    async with second.pin() as view:
        assert [read(file.path)["revenue"].to_pylist()[0] for file in view.files] == [0.5, 4.5]
    await second.close()


async def test_promotion_never_changes_its_type(tmp_path):
    """A property that is a column of another type is refused, and nothing is appended."""
    first = open_archive(tmp_path)
    await first.append(events(0, 4), 0, 4)
    await first.close()
    second = open_archive(tmp_path, promotions=(*BUILT_IN, Promotion("revenue", "str")))
    with pytest.raises(PromotionConflict, match="revenue is a column of type double"):
        await second.append(events(4, 8), 4, 8)
    assert await second.watermark() == 4
    await second.close()


async def test_promotions_that_differ_in_case(archive, tmp_path):
    """SQL could not tell two columns apart that differ only in case: the second is refused."""
    await archive.append(events(0, 4), 0, 4)
    other = open_archive(tmp_path, promotions=as_promotions({"Revenue": float}))
    with pytest.raises(PromotionConflict, match="differ only in case"):
        await other.append(events(4, 8), 4, 8)
    await other.close()


async def test_pin_of_a_snapshot_and_of_a_tag(archive):
    """A snapshot is read again by id or by tag; moving the tag moves what it names; a removed one is gone."""
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
    """`untag` takes tags away, not branches."""
    await archive.append(events(0, 1), 0, 1)
    with pytest.raises(SnapshotExpired):
        await archive.untag("main")
    assert await archive.watermark() == 1


async def test_expired_snapshots_are_an_error(archive):
    """Expiry keeps the newest and the tagged; another one then raises SnapshotExpired, never reads the newest."""
    for start in range(0, 20, 4):
        await archive.append(events(start, start + 4), start, start + 4)
    ids = [snapshot.id for snapshot in await archive.snapshots()]
    await archive.tag("audit", ids[1])
    dry = await archive.expire(dry_run=True)
    assert (dry.snapshots, dry.kept, dry.dry_run) == ((ids[0], ids[2], ids[3]), 2, True)
    assert [snapshot.id for snapshot in await archive.snapshots()] == ids
    assert (await archive.expire()).snapshots == dry.snapshots
    assert [snapshot.id for snapshot in await archive.snapshots()] == [ids[1], ids[4]]
    assert await seqs(archive, "audit") == list(range(8))
    with pytest.raises(SnapshotExpired):
        await seqs(archive, ids[0])
    assert (await archive.expire()).snapshots == ()


async def test_expiry_by_number_and_age(tmp_path):
    """A snapshot goes only when it is beyond `snapshots_keep` and older than `snapshots_age_s`, by our clock."""
    clock = ManualClock()
    archive = open_archive(tmp_path, clock=clock, snapshots_keep=2, snapshots_age_s=100)
    for start in range(4):
        await archive.append(events(start, start + 1), start, start + 1)
        clock.advance(60)
    ids = [snapshot.id for snapshot in await archive.snapshots()]
    assert [s.committed_us - START for s in await archive.snapshots()] == [at * 60_000_000 for at in range(4)]
    assert (await archive.expire()).snapshots == (ids[0], ids[1])
    await archive.close()


async def test_compaction_merges_each_day(archive):
    """Compaction leaves one file a day, with the same rows and the same watermark, and then finds nothing to do."""
    for start in range(0, 40, 5):
        await archive.append(events(start, start + 5), start, start + 5)
    done = await archive.compact()
    assert (done.commits, done.files_after) == (1, 6)
    async with archive.pin() as view:
        assert [file.rows for file in view.files] == [4] * 10
        assert view.watermark == 40
    assert await seqs(archive) == list(range(40))
    assert (await archive.snapshots())[-1].operation == "compact"
    assert (await archive.compact()).commits == 0


async def test_compaction_is_bounded(tmp_path):
    """Groups have no more than `archive_rows` rows, commits about `compact_target_bytes`, and it comes to an end."""
    archive = open_archive(tmp_path, archive_rows=20, compact_target_bytes=20_000)
    for start in range(0, 60, 6):
        await archive.append(events(start, start + 6, at=lambda seq: START + seq), start, start + 6)
    done = await archive.compact()
    assert done.commits > 1
    async with archive.pin() as view:
        assert max(file.rows for file in view.files) == 18
        assert sum(file.rows for file in view.files) == 60
    assert await seqs(archive) == list(range(60))
    assert (await archive.compact()).commits == 0
    await archive.close()


async def test_large_files_are_left_alone(tmp_path):
    """Files of `compact_below_bytes` or more are not rewritten."""
    archive = open_archive(tmp_path, compact_below_bytes=1)
    for start in (0, 1):
        await archive.append(events(start, start + 1), start, start + 1)
    assert (await archive.compact()).commits == 0
    await archive.close()


async def test_a_batch_beyond_the_target_becomes_several_files(tmp_path):
    """A day's rows go on in a further file when one has reached the target size."""
    archive = open_archive(tmp_path, compact_target_bytes=1)
    rows = events(0, 10, at=lambda seq: START + seq)
    from lakebed.tiers import datafiles

    before, datafiles._ROW_GROUP = datafiles._ROW_GROUP, 4
    try:
        await archive.append(rows, 0, 10)
    finally:
        datafiles._ROW_GROUP = before
    async with archive.pin() as view:
        assert [file.rows for file in view.files] == [4, 4, 2]
    assert await seqs(archive) == list(range(10))
    await archive.close()


async def test_columns_too_wide_for_one_chunk(tmp_path, monkeypatch):
    """Text beyond what one Arrow chunk can hold is archived, and compacted with files that have less of it."""
    from lakebed.tiers import datafiles

    archive = open_archive(tmp_path)
    await archive.append(events(0, 4, at=lambda seq: START + seq), 0, 4)
    monkeypatch.setattr(datafiles, "_LARGE", 0)
    await archive.append(events(4, 8, at=lambda seq: START + seq), 4, 8)
    assert (await archive.compact()).rows == 8
    async with archive.pin() as view:
        rows = read(view.files[0].path).sort_by("seq")
    assert rows["message_id"].to_pylist() == [f"m{seq}" for seq in range(8)]
    assert rows["revenue"].to_pylist() == [seq + 0.5 for seq in range(8)]
    assert await archive.check() == []
    await archive.close()


async def test_erasure(archive, tmp_path):
    """Erased rows are in no view, the watermark stays, and after expiry and collection their bytes are gone."""
    await archive.append(events(0, 40, user=lambda seq: f"person-{seq % 4}"), 0, 40)
    kept = [seq for seq in range(40) if seq % 4 != 1]
    done = await archive.erase("user_id", ["person-1", "nobody"])
    assert (done.rows, done.files) == (10, 10)
    assert await seqs(archive) == kept
    assert await archive.watermark() == 40
    assert (await archive.erase("user_id", ["person-1"])).rows == 0
    await archive.append(events(40, 44), 40, 44)
    await archive.compact()
    assert (await archive.erase("message_id", ["m40"])).rows == 1
    assert await archive.check() == []
    await archive.expire()
    await archive.collect_garbage()
    assert not any("person-1" in str(read(path)["user_id"]) for path in stored(tmp_path) if path.suffix == ".parquet")
    assert not any(
        "m40" in read(path)["message_id"].to_pylist() for path in stored(tmp_path) if path.suffix == ".parquet"
    )
    with pytest.raises(QueryRefused):
        await archive.erase("timestamp", ["2026"])


async def test_erasure_of_everything(archive):
    """A file of which nothing is left goes; the watermark does not."""
    await archive.append(events(0, 4, user=lambda _: "only"), 0, 4)
    await archive.erase("user_id", ["only"])
    async with archive.pin() as view:
        assert view.files == ()
        assert view.watermark == 4
    await archive.append(events(4, 8), 4, 8)
    assert await seqs(archive) == [4, 5, 6, 7]


async def test_watermark_survives_maintenance(tmp_path):
    """Erasure, compaction, expiry and collection leave the watermark; so does opening the archive again."""
    archive = open_archive(tmp_path)
    for start in range(0, 20, 5):
        await archive.append(events(start, start + 5), start, start + 5)
    await archive.erase("user_id", ["u3"])
    await archive.compact()
    await archive.expire()
    await archive.collect_garbage()
    assert await archive.watermark() == 20
    assert len(await archive.snapshots()) == 1
    await archive.close()
    again = open_archive(tmp_path)
    assert await again.watermark() == 20
    with pytest.raises(ArchiveConflict):
        await again.append(events(0, 21), 0, 21)
    assert await again.append(events(20, 25), 20, 25)
    assert await again.check() == []
    await again.close()


async def test_metadata_is_bounded(archive, tmp_path):
    """However many commits there were, about 20 metadata files stay, and manifests are merged."""
    for start in range(30):
        await archive.append(events(start, start + 1), start, start + 1)
    metadata = [path for path in stored(tmp_path) if path.name.endswith(".metadata.json")]
    assert len(metadata) <= 22
    await archive.expire()
    await archive.collect_garbage()
    assert len([path for path in stored(tmp_path) if path.suffix == ".avro"]) <= 21
    assert await seqs(archive) == list(range(30))


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
    """Cancelling the await does not stop a transaction halfway, nor let another one in between."""
    task = asyncio.ensure_future(archive.append(events(0, 10), 0, 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await archive.append(events(0, 10), 0, 10) is False
    assert await seqs(archive) == list(range(10))


async def test_cancelled_pin_lets_go(archive):
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
    """After close there is no thread, no descriptor, and every call says that it is closed."""
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


async def test_foreign_commit_is_refused(tmp_path):
    """When another program commits, the watermark is not known: everything that would rely on it fails closed."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 8), 0, 8)
    await archive.close()
    from pyiceberg.catalog.sql import SqlCatalog

    with SqlCatalog("lakebed", uri=f"sqlite:///{tmp_path}/shop/archive/catalog.db") as catalog:
        catalog.load_table("lakebed.events").delete("seq = 3")
    archive = open_archive(tmp_path)
    for call in (archive.watermark, archive.compact, lambda: archive.append(events(8, 9), 8, 9)):
        with pytest.raises(ArchiveConflict, match="does not say how far"):
            await call()
    (problem,) = await archive.check()
    assert "does not say how far" in problem
    assert (await archive.snapshots())[-1].watermark is None
    await archive.close()


async def test_foreign_table_is_refused(tmp_path):
    """A table that a newer Lakebed made, that lost our settings, or that is not ours at all, is not touched."""
    from pyiceberg.catalog.sql import SqlCatalog

    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.close()
    uri = f"sqlite:///{tmp_path}/shop/archive/catalog.db"
    for change, expected in (
        ({"lakebed.format-version": "2"}, FormatTooNew),
        ({"lakebed.format-version": "1", "commit.retry.num-retries": "4"}, ArchiveConflict),
    ):
        with SqlCatalog("lakebed", uri=uri) as catalog, catalog.load_table("lakebed.events").transaction() as change_it:
            change_it.set_properties(change)
        archive = open_archive(tmp_path)
        with pytest.raises(expected):
            await archive.append(events(4, 8), 4, 8)
        await archive.close()


async def test_check_finds_damage(tmp_path):
    """A data file that is cut or missing, and manifests that cannot be read, are problems said in sentences."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 8), 0, 8)
    async with archive.pin() as view:
        first, second = view.files
    os.truncate(first.path, first.bytes - 1)
    Path(second.path).unlink()
    problems = await archive.check()
    assert [path in problem for path, problem in zip((first.path, second.path), problems, strict=True)] == [True, True]
    assert f"{first.bytes - 1} bytes, not {first.bytes}" in problems[0]
    await archive.append(events(8, 9, at=lambda _: START), 8, 9)
    with pytest.raises(ArchiveUnavailable, match="cannot be read"):
        await archive.compact()
    assert await archive.watermark() == 9
    await archive.close()
    for path in stored(tmp_path):
        if path.name.endswith("-m0.avro"):
            path.write_bytes(b"")
    archive = open_archive(tmp_path)
    (problem,) = await archive.check()
    assert "cannot be read" in problem
    with pytest.raises(ArchiveUnavailable):
        await archive.collect_garbage()
    await archive.close()


async def test_flipped_bits_are_not_laundered(tmp_path):
    """Compaction verifies checksums: a damaged page stops it, and the old files stay as they are."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 2, at=lambda seq: START + seq), 0, 2)
    await archive.append(events(2, 3, at=lambda seq: START + seq), 2, 3)
    async with archive.pin() as view:
        path = Path(view.files[0].path)
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    for column in (group.column(number) for number in range(group.num_columns)):
        last = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        path.write_bytes(whole[:last] + bytes([whole[last] ^ 0x10]) + whole[last + 1 :])
        with pytest.raises(ArchiveUnavailable, match="cannot be read"):
            await archive.compact()
    path.write_bytes(whole)
    assert (await archive.compact()).rows == 3
    await archive.close()


@pytest.mark.parametrize("namespace", ["../../out", "/tmp", "a/../../../b"])  # noqa: S108 - a name, not a file
async def test_paths_stay_inside(tmp_path, namespace):
    """A namespace that leads out of the object's directory is refused, and nothing is written there."""
    archive = open_archive(tmp_path, namespace=namespace)
    with pytest.raises((InvalidName, ArchiveUnavailable)):
        await archive.append(events(0, 1), 0, 1)
    await archive.close()
    assert [path.name for path in stored(tmp_path)] == ["catalog.db"]


async def test_odd_directories(tmp_path):
    """Spaces, umlauts, # and % in the root are no trouble."""
    root = tmp_path / "a b #1 100% ü"
    archive = open_archive(root)
    await archive.append(events(0, 4), 0, 4)
    await archive.append(events(4, 8, at=lambda _: START), 4, 8)
    await archive.compact()
    await archive.expire()
    await archive.collect_garbage()
    assert await seqs(archive) == list(range(8))
    assert await archive.check() == []
    await archive.close()
    assert (root / "shop/archive/catalog.db").exists()
