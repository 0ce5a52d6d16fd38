import asyncio
import os

import pytest

from lakebed.clock import SystemClock
from lakebed.errors import ArchiveConflict, PromotionConflict, SnapshotExpired
from lakebed.events.promotions import Promotion
from tests.tiers.archive.archive_fixtures import (
    BUILT_IN,
    PROMOTIONS,
    START,
    QuickDisk,
    events,
    open_archive,
    read,
    seqs,
    stored,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def pair(tmp_path):
    """A catalog, and a function that opens archivers of one table in it. They are closed at the end."""
    from tests.tiers.archive.flaky_catalog import FlakyCatalog

    FlakyCatalog.script, FlakyCatalog.meanwhile = [], None
    catalog = {
        "py-catalog-impl": "tests.tiers.archive.flaky_catalog.FlakyCatalog",
        "uri": f"sqlite:///{tmp_path}/elsewhere.db",
        "warehouse": str(tmp_path / "warehouse"),
    }
    opened = []

    def make(**options):
        opened.append(open_archive(tmp_path, catalog=catalog, clock=SystemClock(), **options))
        return opened[-1]

    yield FlakyCatalog, make
    for archive in opened:
        assert await archive.check() == []
        await archive.close()


def between(catalog, call):
    """Run `call` after the next commit was prepared, and before it is made."""
    catalog.meanwhile = lambda: asyncio.run(call())


async def same_day(archive, start, end):
    return await archive.append(events(start, end, at=lambda seq: START + seq), start, end)


def grow_old(root):
    """Make every file older than any grace period."""
    for path in stored(root):
        os.utime(path, (0, 0))


@pytest.mark.parametrize("job", ["append", "compact", "erase"])
async def test_l3_30_garbage_collection_beside_an_uncommitted_write(pair, tmp_path, job):
    """Another collector between the files of a commit and the commit deletes none of these files.

    The files are young: the grace period protects them. Old, unneeded files are deleted at the same time.
    """
    catalog, make = pair
    writer, collector = make(garbage_grace_s=3600), make(garbage_grace_s=3600)
    await same_day(writer, 0, 4)
    await same_day(writer, 4, 8)
    stray = tmp_path / "warehouse/lakebed/shop/data/stray.parquet"
    stray.write_bytes(b"x")
    grow_old(tmp_path / "warehouse")
    collected = []

    async def collect():
        collected.append(await collector.collect_garbage())

    between(catalog, collect)
    if job == "append":
        assert await same_day(writer, 8, 12) is True
    elif job == "compact":
        assert (await writer.compact()).files_before == 2
    else:
        assert (await writer.erase("user_id", ["u3"])).rows == 1
    assert [garbage.paths for garbage in collected] == [(str(stray),)]
    expected = {"append": range(12), "compact": range(8), "erase": [0, 1, 2, 4, 5, 6, 7]}[job]
    assert await seqs(writer) == list(expected)


async def test_l3_30_garbage_collection_beside_a_reader(pair):
    """A view opened before its own archive compacts, expires and collects can be read to the end."""
    _, make = pair
    archive = make()
    await same_day(archive, 0, 4)
    await same_day(archive, 4, 8)
    async with archive.pin() as view:
        first = read(view.files[0].path)["seq"].to_pylist()
        await archive.compact()
        await archive.expire()
        await archive.collect_garbage()
        assert first + read(view.files[1].path)["seq"].to_pylist() == list(range(8))
    assert len((await archive.collect_garbage()).paths) == 2


class Overtaken(QuickDisk):
    """Calls `first`, if set, once before its first deletion."""

    first = None

    def remove(self, path):
        if self.first is not None:
            call, self.first = self.first, None
            call()
        super().remove(path)


async def test_l3_30_two_collectors_at_once(pair, tmp_path):
    """Files that another collector or commit has deleted meanwhile cause no failure."""
    _, make = pair
    disk = Overtaken()
    slow, fast = make(disk=disk), make()
    await same_day(slow, 0, 4)
    await same_day(slow, 4, 8)
    await slow.compact()
    await slow.expire()
    expected = (await slow.collect_garbage(dry_run=True)).paths
    taken = []
    disk.first = lambda: taken.append(asyncio.run(fast.collect_garbage()).paths)
    assert (await slow.collect_garbage()).paths == expected == taken[0]
    assert not set(expected) & {str(path) for path in stored(tmp_path)}
    assert await seqs(slow) == list(range(8))


async def test_l3_29_snapshots_removed_between_plan_and_commit(pair):
    """When another archiver removes snapshots and tags meanwhile, the plan is made anew, or it is SnapshotExpired."""
    catalog, make = pair
    first, second = make(), make()
    for start in (0, 4, 8):
        await same_day(first, start, start + 4)
    between(catalog, second.expire)
    assert (await first.expire()).snapshots == ()
    assert len(await first.snapshots()) == 1
    await same_day(first, 12, 16)
    oldest = (await first.snapshots())[0].id
    between(catalog, second.expire)
    with pytest.raises(SnapshotExpired):
        await first.tag("late", oldest)
    await first.tag("audit")
    between(catalog, lambda: second.untag("audit"))
    with pytest.raises(SnapshotExpired):
        await first.untag("audit")
    assert await seqs(first) == list(range(16))


async def values_of(archive, column):
    async with archive.pin() as view:
        rows = [row for file in view.files for row in read(file.path).select(["seq", column]).to_pylist()]
    return {row["seq"]: row[column] for row in rows}


@pytest.mark.parametrize("job", ["append", "compact"])
async def test_l3_35_a_column_that_comes_between_plan_and_commit(pair, job):
    """A property that another archiver promotes meanwhile becomes a column of the commit, with its values."""
    catalog, make = pair
    plain, promoting = make(promotions=BUILT_IN), make(promotions=PROMOTIONS)
    await same_day(plain, 0, 4)
    await same_day(plain, 4, 8)
    end = 12

    async def promote():
        await same_day(promoting, 8, end)

    between(catalog, promote)
    if job == "append":
        assert await same_day(plain, 8, end) is False
        assert await same_day(plain, end, end + 4) is True
        end += 4
    await plain.compact()
    assert await values_of(plain, "revenue") == {seq: seq + 0.5 for seq in range(end)}


async def test_l3_35_a_type_that_comes_between_plan_and_commit(pair):
    """Two archivers promote a property with two types: the first type stays, the second batch is not appended."""
    catalog, make = pair
    plain, number = make(promotions=BUILT_IN), make()
    text = make(promotions=(*BUILT_IN, Promotion("revenue", "str")))
    await same_day(plain, 0, 4)
    await same_day(plain, 4, 8)
    between(catalog, number.compact)
    with pytest.raises(PromotionConflict, match="revenue is a column of type double"):
        await same_day(text, 8, 12)
    assert await plain.watermark() == 8
    assert await same_day(plain, 8, 12) is True
    assert await values_of(number, "revenue") == {seq: seq + 0.5 for seq in range(12)}


async def test_l3_35_columns_that_another_program_renames(pair, tmp_path):
    """A renamed or dropped promoted column is added again from the events; for a base column every call fails."""
    from pyiceberg.catalog.sql import SqlCatalog

    _, make = pair
    archive = make()
    await same_day(archive, 0, 4)

    def change(call):
        with (
            SqlCatalog("lakebed", uri=f"sqlite:///{tmp_path}/elsewhere.db") as catalog,
            catalog.load_table("lakebed.shop").update_schema(allow_incompatible_changes=True) as update,
        ):
            call(update)

    end = 4
    for call in (
        lambda update: update.rename_column("revenue", "turnover"),
        lambda update: update.delete_column("revenue"),
    ):
        change(call)
        assert await same_day(archive, end, end + 4) is True
        end += 4
    async with archive.pin() as view:
        assert sum("revenue" in file.columns for file in view.files) == 1, "the others are computed when they are read"
    await archive.compact()
    assert await values_of(archive, "revenue") == {seq: seq + 0.5 for seq in range(12)}
    change(lambda update: update.rename_column("user_id", "uid"))
    for call in (archive.watermark, archive.compact, lambda: same_day(archive, 12, 16)):
        with pytest.raises(ArchiveConflict, match="does not have the columns of events"):
            await call()
    change(lambda update: update.rename_column("uid", "user_id"))
    assert await seqs(archive) == list(range(12))


async def test_l3_36_erased_bytes_leave_the_disk(pair, tmp_path):
    """After erasure, expiry and collection no file has a byte of the person, and no batch brings them back.

    An older tag keeps the bytes, like all other files, until it is removed.
    """
    _, make = pair
    archive = make()
    rows = events(0, 40, user=lambda seq: f"person-{seq % 4}", at=lambda seq: START + seq)
    await archive.append(rows.slice(0, 20), 0, 20)
    await archive.append(rows.slice(20), 20, 40)
    await archive.tag("audit")
    assert (await archive.erase("user_id", ["person-3"])).rows == 10

    async def clean():
        await archive.compact()
        await archive.expire()
        await archive.collect_garbage()

    def traces():
        """Files with the person in their rows, and manifests with the person in their bounds."""
        data = [path for path in stored(tmp_path) if path.suffix == ".parquet"]
        paths = [path for path in data if "person-3" in read(path)["user_id"].to_pylist()]
        return paths + [path for path in stored(tmp_path) if b"person-3" in path.read_bytes() and path not in paths]

    def bounds(worker):
        table = worker.load()
        entries = [
            entry
            for s in table.snapshots()
            for m in s.manifests(table.io)
            for entry in m.fetch_manifest_entry(table.io)
        ]
        return {value for entry in entries for value in (entry.data_file.upper_bounds or {}).values()}

    await clean()
    assert traces()
    assert b"person-3" in await archive._run(bounds)
    await archive.untag("audit")
    await clean()
    assert traces() == []
    assert b"person-3" not in await archive._run(bounds)
    for start, end in ((0, 20), (20, 40), (0, 40)):
        assert await archive.append(rows.slice(start, end - start), start, end) is False
    assert await seqs(archive) == [seq for seq in range(40) if seq % 4 != 3]
