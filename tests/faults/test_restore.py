"""Restoring a backup, which is a copy of a closed object's directory."""

import shutil
from datetime import timedelta

import pytest

from lakebed import ArchiveConflict, ArchiveUnavailable, LogBehind
from lakebed.clock import from_us
from tests.faults.orders import START, fill, holds, move_all

ANSWERS = (
    "SELECT * FROM events ORDER BY seq",
    "SELECT * FROM hourly_events ORDER BY ALL",
    "SELECT * FROM daily_metrics ORDER BY ALL",
    "SELECT * FROM people ORDER BY ALL",
    "SELECT * FROM revenue ORDER BY ALL",
)


async def answers(shop, moment):
    """The answers of an object to queries and metrics, its totals and its snapshots."""
    results = [(await shop.query(sql)).rows for sql in ANSWERS]
    results.append((await shop.query(ANSWERS[0], as_of=moment)).rows)
    results += [(await shop.dau(3)).rows, (await shop.wau(3)).rows, shop.stats().totals, await shop.snapshots()]
    return results


async def every_tier(shop, clock):
    """Put events into the archive alone, into archive and log, a sealed segment, and the open segment."""
    await fill(shop, 0, 20)
    await move_all(shop, clock)
    await fill(shop, 20, 35)
    await shop.archive(older_than=from_us(clock.now_us() + 1))
    await fill(shop, 35, 48)
    clock.advance(1)


async def test_52_a_restored_backup_answers_as_when_it_was_made(make, clock, tmp_path):
    """A restored copy answers as at the time of the copy, after the original went on and was lost.

    The object then stores the events that it lacks, and archives them.
    """
    async with make() as shop:
        await every_tier(shop, clock)
        moment = from_us(clock.now_us() - 1)
        before = await answers(shop, moment)
    shutil.copytree(tmp_path / "shop", tmp_path / "backup")
    async with make() as shop:
        await fill(shop, 48, 90)
        await shop.archive()
        await shop.compact()
        await shop.expire()
        await shop.collect_garbage()
    shutil.rmtree(tmp_path / "shop")
    shutil.copytree(tmp_path / "backup", tmp_path / "shop")
    async with make() as shop:
        assert await answers(shop, moment) == before
        assert await shop.check() == []
        receipts = await fill(shop, 40, 60)
        assert [receipt.status for receipt in receipts] == ["duplicate"] * 8 + ["stored"] * 12
        await move_all(shop, clock)
        await shop.compact()
        assert await holds(shop, 60)
        assert await shop.check() == []


async def test_52_a_copy_elsewhere_leaves_the_original_alone(make, clock, tmp_path):
    """A copy opened at another place refuses to work on the original's archive, and names its place.

    Else its daily job would delete, as garbage, the later files of the original.
    """
    elsewhere = tmp_path / "elsewhere"
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
    shutil.copytree(tmp_path / "shop", elsewhere / "shop")
    async with make() as shop:
        await fill(shop, 20, 40)
        await move_all(shop, clock)
        async with make(root=elsewhere) as copy:
            for job in (copy.archive, copy.compact, copy.expire, copy.collect_garbage, copy.tidy, copy.snapshots):
                with pytest.raises(ArchiveConflict, match="its files belong to another object") as refused:
                    await job()
                assert refused.value.path == tmp_path / "shop/archive/warehouse/lakebed/events"
            with pytest.raises(ArchiveConflict):
                await copy.query("SELECT count(*) FROM events")
            assert [problem.where for problem in await copy.check()] == ["archive"]
        assert await holds(shop, 40)
        assert await shop.check() == []


async def test_52_a_moved_object_refuses_to_open(make, clock, tmp_path):
    """A moved object raises an error that says how to repair it, instead of a partial answer. Moved back, it works.

    It also works with a link at the old place.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
    shutil.move(tmp_path / "shop", elsewhere / "shop")
    async with make(root=elsewhere) as shop:
        with pytest.raises(ArchiveUnavailable, match="If the directory was moved") as lost:
            await shop.query("SELECT count(*) FROM events")
        assert str(tmp_path / "shop/archive") in str(lost.value)
        (tmp_path / "shop").symlink_to(elsewhere / "shop")
        assert await holds(shop, 20)
        assert await shop.check() == []
    (tmp_path / "shop").unlink()
    shutil.move(elsewhere / "shop", tmp_path / "shop")
    async with make() as shop:
        assert await holds(shop, 20, as_of=START)
        assert await shop.check() == []


def put_back(backup, directory, part):
    """Replace one part of an object with that of a backup."""
    for path in directory.glob(f"{part}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in backup.glob(f"{part}*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, directory / path.name)


@pytest.fixture
async def two_backups(make, clock, tmp_path):
    """An object of 40 archived events, with 5 more in the log, and its backup from when it had 20."""
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
    shutil.copytree(tmp_path / "shop", tmp_path / "backup")
    async with make() as shop:
        await fill(shop, 20, 40)
        await move_all(shop, clock)
        await fill(shop, 40, 45)
    return tmp_path / "backup", tmp_path / "shop"


async def test_52_a_restored_older_log_is_an_error(make, two_backups):
    """A log without events that rollups and archive have is LogBehind: their seqs are not assigned again."""
    put_back(*two_backups, "log")
    with pytest.raises(LogBehind):
        await make().open()


async def test_52_a_restored_older_storage_is_caught_up(make, two_backups):
    """Rollups and totals of an older storage.db catch up from log and archive."""
    put_back(*two_backups, "storage.db")
    async with make() as shop:
        assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(45)) / 2
        assert shop.stats().totals == {"order": 23, "view": 22}
        assert await holds(shop, 45)
        assert await shop.check() == []


@pytest.mark.parametrize("state", ["older", "older, erased from", "lost"])
async def test_52_a_restored_older_archive_is_an_error(make, clock, two_backups, state):
    """If neither the archive nor the log has some events any more, every query of them is an error.

    A partial answer would look like any other. A moment before the gap is still answered exactly; with the right
    archive put back all events are there.
    """
    backup, directory = two_backups
    shutil.copytree(directory / "archive", directory / "kept")
    if state == "lost":
        shutil.rmtree(directory / "archive")
    else:
        put_back(backup, directory, "archive")
    async with make() as shop:
        if "erased" in state:
            await shop._components.archive.erase("user_id", ["u3"])
        for moment in (None, from_us(clock.now_us())):
            with pytest.raises(ArchiveConflict, match="40 are in neither log nor archive"):
                await shop.query("SELECT count(*) FROM events", as_of=moment)
        with pytest.raises(ArchiveConflict):
            [table async for table in shop._components.history.read(0, 45)]
        with pytest.raises(ArchiveConflict):
            await shop.dau(1, as_of=from_us(clock.now_us()))
        assert any("40 are in neither log nor archive" in problem.message for problem in await shop.check())
        if state != "lost":
            before = await shop.query("SELECT count(*) FROM events", as_of=START - timedelta(seconds=1))
            assert (before.scalar(), before.seq) == (0, (0, 0))
    shutil.rmtree(directory / "archive", ignore_errors=True)
    (directory / "kept").rename(directory / "archive")
    async with make() as shop:
        assert await holds(shop, 45)
        assert await shop.check() == []
