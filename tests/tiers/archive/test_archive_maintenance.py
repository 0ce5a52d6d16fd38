import pytest

from lakebed.clock import ManualClock
from lakebed.errors import (
    ArchiveConflict,
    QueryRefused,
    SnapshotExpired,
)
from tests.tiers.archive.archive_fixtures import START, events, open_archive, read, seqs, stored

pytestmark = pytest.mark.integration


@pytest.fixture
async def archive(tmp_path):
    archive = open_archive(tmp_path)
    yield archive
    assert await archive.check() == []
    await archive.close()


async def test_expired_snapshots_are_an_error(archive):
    """Expiry keeps the newest and the tagged snapshots; any other then raises SnapshotExpired."""
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
    """A snapshot expires only beyond `snapshots_keep` and older than `snapshots_age_s`, by our clock."""
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
    """Groups have at most `archive_rows` rows, commits about `compact_target_bytes`, and compaction ends."""
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
    """A day's rows continue in another file when one has reached the target size."""
    archive = open_archive(tmp_path, compact_target_bytes=1)
    rows = events(0, 10, at=lambda seq: START + seq)
    from lakebed.tiers.archive import data_files as datafiles

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
    """Text larger than an Arrow chunk is archived, and compacted with files that have less of it."""
    from lakebed.tiers.archive import data_files as datafiles

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
    """A file without remaining rows is removed; the watermark stays."""
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
    """After any number of commits about 20 metadata files stay, and manifests are merged."""
    for start in range(30):
        await archive.append(events(start, start + 1), start, start + 1)
    metadata = [path for path in stored(tmp_path) if path.name.endswith(".metadata.json")]
    assert len(metadata) <= 22
    await archive.expire()
    await archive.collect_garbage()
    assert len([path for path in stored(tmp_path) if path.suffix == ".avro"]) <= 21
    assert await seqs(archive) == list(range(30))
