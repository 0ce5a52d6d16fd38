import os
import shutil
from pathlib import Path

import pytest

from lakebed.clock import ManualClock, from_us
from lakebed.disk import Disk
from lakebed.errors import ArchiveUnavailable
from tests.tiers.archive.archive_fixtures import START, Died, MortalDisk, events, open_archive, seqs, seqs_of, stored

pytestmark = pytest.mark.integration


@pytest.fixture(params=[3, pytest.param(1, marks=pytest.mark.slow)])
def step(request):
    """Every third operation in the normal suite, each one in the slow one."""
    return request.param


async def lives_through(root, act, prepare, step=1):
    """Run `act` on archives that die at one file operation after the other, until one survives."""
    place, copy = root / "place", root / "copy"  # always at one path: Iceberg's metadata has absolute paths
    place.mkdir()
    healthy = open_archive(place)
    await prepare(healthy)
    await healthy.close()
    shutil.copytree(place, copy)
    for lives in range(0, 1000, step):
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        mortal = open_archive(place, disk=MortalDisk(lives))
        try:
            await act(mortal)
        except Died:
            lived = False
        else:
            lived = True
        await mortal.close()
        again = open_archive(place)
        yield lives, again, lived
        assert await again.check() == []
        await again.close()
        if lived:
            return


async def same_day(archive, start, end):
    return await archive.append(events(start, end, at=lambda seq: START + seq), start, end)


async def test_append_killed_at_every_file_operation(tmp_path, step):
    """Killed anywhere in an append, the archive is in the old state or the new; running it again adds what lacks."""

    async def prepare(archive):
        await archive.append(events(0, 8), 0, 8)

    async def act(archive):
        await archive.append(events(8, 12), 8, 12)

    deaths = 0
    async for _, archive, lived in lives_through(tmp_path, act, prepare, step):
        deaths += not lived
        assert await archive.watermark() in ((12,) if lived else (8, 12))
        there = await archive.watermark() == 12
        assert await archive.append(events(8, 12), 8, 12) is not there
        assert await seqs(archive) == list(range(12))
        await archive.collect_garbage()
        assert await seqs(archive) == list(range(12))
    assert deaths > 10 // step


async def test_first_append_killed_at_every_file_operation(tmp_path, step):
    """The same without an existing catalog, table or directory."""

    async def prepare(_):
        pass

    async def act(archive):
        await archive.append(events(0, 2), 0, 2)

    async for _, archive, _lived in lives_through(tmp_path, act, prepare, step):
        await archive.append(events(0, 2), 0, 2)
        assert await archive.append(events(0, 2), 0, 2) is False
        assert await seqs(archive) == [0, 1]


async def test_compaction_and_erasure_killed_at_every_file_operation(tmp_path, step):
    """Killed anywhere in compaction or erasure, the rows are the old or the new ones, each once; a repeat works."""

    async def prepare(archive):
        for start in (0, 6):
            await same_day(archive, start, start + 6)

    async def act(archive):
        await archive.compact()
        await archive.erase("user_id", ["u5"])

    whole, erased = list(range(12)), [seq for seq in range(12) if seq % 7 != 5]
    async for lives, archive, lived in lives_through(tmp_path, act, prepare, step):
        assert await seqs(archive) in ([erased] if lived else [whole, erased])
        if lives // step % 2 and not lived:  # continuing after each of them would take too long
            continue
        await act(archive)
        assert await seqs(archive) == erased
        assert await archive.watermark() == 12
        await archive.expire()
        await archive.collect_garbage()
        assert await seqs(archive) == erased


async def test_maintenance_killed_at_every_file_operation(tmp_path, step):
    """Killed anywhere in expiry or collection, nothing that is needed is gone."""

    async def prepare(archive):
        for start in (0, 2, 4):
            await same_day(archive, start, start + 2)
        await archive.compact()

    async def act(archive):
        await archive.expire()
        await archive.collect_garbage()

    async for lives, archive, lived in lives_through(tmp_path, act, prepare, step):
        assert await seqs(archive) == list(range(6))
        if lives // step % 2 and not lived:
            continue
        await act(archive)
        assert await seqs(archive) == list(range(6))
        assert (await archive.collect_garbage()).paths == ()


@pytest.mark.parametrize("operation", ["write", "sync", "sync_directory"])
async def test_failing_disk(tmp_path, operation):
    """An error of the disk at any operation makes the append fail, and never succeed in part."""

    class Failing(Disk):
        left = 0

        def _count(self):
            Failing.left -= 1
            if Failing.left == 0:
                raise OSError(5, "Input/output error")

    def failing(self, *arguments):
        self._count()
        getattr(Disk, operation)(self, *arguments)

    setattr(Failing, operation, failing)
    disk = Failing()
    archive = open_archive(tmp_path, disk=disk)
    await archive.append(events(0, 4), 0, 4)
    failures, start = 0, 4
    for number in range(1, 40):
        Failing.left = number
        try:
            await archive.append(events(start, start + 4), start, start + 4)
        except ArchiveUnavailable as error:
            assert "Input/output error" in str(error)  # noqa: PT017 - not every number meets an operation
            failures += 1
        else:
            start += 4
        Failing.left = 0
        assert await archive.watermark() == start
        if number > 20 and start > 20:
            break
    assert failures > 2
    assert await seqs(archive) == list(range(start))
    await archive.close()


async def test_everything_is_synced_before_the_commit_returns(tmp_path):
    """Each file is synced after its last write and before its directory; each new directory is synced in its parent."""
    done = []

    class Recording(Disk):
        names = {}  # noqa: RUF012 - one instance

        def create(self, path):
            descriptor = super().create(path)
            self.names[descriptor] = path
            return descriptor

        def write(self, descriptor, buffers, offset):
            super().write(descriptor, buffers, offset)
            done.append(("write", self.names[descriptor]))

        def sync(self, descriptor):
            super().sync(descriptor)
            done.append(("sync", self.names[descriptor]))

        def sync_directory(self, path):
            super().sync_directory(path)
            done.append(("directory", path))

    archive = open_archive(tmp_path, disk=Recording())
    await archive.append(events(0, 8), 0, 8)
    await archive.append(events(8, 9, at=lambda _: START), 8, 9)
    await archive.compact()
    await archive.close()
    last = {step: number for number, step in enumerate(done)}
    files = [path for path in stored(tmp_path) if path.name != "catalog.db"]
    assert len(files) > 10
    for path in files:
        assert last["write", path] < last["sync", path] < last["directory", path.parent]
    directories = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(directories) > 6
    for path in directories:
        assert ("directory", path.parent) in last
    assert ("directory", tmp_path / "shop/archive") in last


async def test_garbage_of_a_crash_is_collected(tmp_path):
    """Files of a crash between Parquet file and commit are listed by a dry run and deleted by a real one."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    needed = stored(tmp_path)
    await archive.close()
    mortal = open_archive(tmp_path, disk=MortalDisk(6))
    with pytest.raises(Died):
        await mortal.append(events(4, 8), 4, 8)
    await mortal.close()
    left = [path for path in stored(tmp_path) if path not in needed]
    assert [path.suffix for path in left if path.suffix == ".parquet"] == [".parquet"]
    archive = open_archive(tmp_path)
    dry = await archive.collect_garbage(dry_run=True)
    assert [Path(path) for path in dry.paths] == left
    assert dry.bytes == sum(path.stat().st_size for path in left)
    assert dry.dry_run
    assert set(left) <= set(stored(tmp_path))
    real = await archive.collect_garbage()
    assert (real.paths, real.bytes, real.dry_run) == (dry.paths, dry.bytes, False)
    assert stored(tmp_path) == needed
    assert await seqs(archive) == [0, 1, 2, 3]
    await archive.close()


async def test_garbage_has_a_grace(tmp_path):
    """Unreferenced files stay until they are older than the grace, by the object's clock."""
    clock = ManualClock()
    archive = open_archive(tmp_path, clock=clock, garbage_grace_s=100)
    await archive.append(events(0, 4), 0, 4)
    stray = tmp_path / "shop/archive/warehouse/lakebed/events/data/stray.parquet"
    stray.write_bytes(b"x")
    os.utime(stray, (from_us(clock.now_us()).timestamp(),) * 2)
    clock.advance(99)
    assert (await archive.collect_garbage()).paths == ()
    clock.advance(1)
    assert (await archive.collect_garbage()).paths == (str(stray),)
    await archive.close()


async def test_pinned_files_are_no_garbage(tmp_path):
    """Files of an open view stay after their snapshot has expired; they are deleted after it is closed."""
    archive = open_archive(tmp_path)
    for start in (0, 4):
        await same_day(archive, start, start + 4)
    async with archive.pin() as view:
        await archive.compact()
        await archive.expire()
        async with archive.pin() as newer:
            assert {file.path for file in view.files}.isdisjoint(file.path for file in newer.files)
        await archive.collect_garbage()
        assert seqs_of(view.files) == list(range(8))
    collected = await archive.collect_garbage()
    assert set(collected.paths) == {file.path for file in view.files}
    assert await seqs(archive) == list(range(8))
    await archive.close()


async def test_links_and_neighbours_are_no_garbage(tmp_path):
    """Collection stays under the table: links are not followed, files beside it are not touched."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    table = tmp_path / "shop/archive/warehouse/lakebed/events"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (table / "data" / "link").symlink_to(outside)
    (table / "data" / "file").symlink_to(outside / "precious")
    (table.parent / "neighbour").write_text("x")
    assert (await archive.collect_garbage()).paths == ()
    assert (outside / "precious").exists()
    await archive.close()


async def test_remote_warehouse_is_not_collected(tmp_path, monkeypatch):
    """If the warehouse is not a local directory, collection raises and deletes nothing."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    from lakebed.tiers.archive import table as iceberg

    monkeypatch.setattr(iceberg, "local_path", lambda _: None)
    with pytest.raises(ArchiveUnavailable, match="not supported"):
        await archive.collect_garbage()
    await archive.close()
