"""storage.db lost, damaged, or restored from an older backup: rollups are rebuilt the same, or it is an error."""

import asyncio
import random
import shutil
from datetime import timedelta

import pytest

from lakebed import Analytics, ArchiveConflict, LogBehind, ManualClock, StorageUnavailable
from lakebed.clock import from_us
from lakebed.errors import LakebedError
from tests.analytics_fixtures import START, fill, maker

OPTIONS = {"retention_s": 0.0, "dedupe_window_s": 60.0}
SEEN = "SELECT coalesce(sum(revenue), 0), count(revenue), count(*) FROM events"


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    return maker(tmp_path, clock)


async def lived(make, clock):
    """A directory with the newest events in the log and all older ones in the archive, and its answers."""
    async with make(**OPTIONS) as shop:
        for first in range(0, 120, 15):
            await fill(shop, 15, first=first, at=START - timedelta(days=first // 4))
            clock.advance(40)
        await shop.archive()
        clock.advance(4000)
        await shop.rollup()
        await fill(shop, 13, first=200)
        await shop.rollup()
        assert shop._components.pipeline.start_seq > 0
        return shop.directory, await answers(shop)


@pytest.fixture(scope="module")
def whole_life(tmp_path_factory):
    """A directory that `lived` filled, a copy of it, what it answers, and when."""
    root, clock = tmp_path_factory.mktemp("life"), ManualClock(START)
    directory, before = asyncio.run(lived(maker(root, clock), clock))
    return directory, shutil.copytree(directory, root / "copy"), before, from_us(clock.now_us())


@pytest.fixture
def life(whole_life):
    """What opens that object, its directory as it was when it was closed, and what it answers."""
    directory, copy, before, now = whole_life
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    return maker(directory.parent, ManualClock(now)), directory, before


async def answers(shop):
    """The answers that need storage.db: rollups with their sketches, and totals."""
    names = ("hourly_events", "daily_metrics", "revenue")
    results = [(await shop.query(f"SELECT * FROM {name} ORDER BY ALL")).rows for name in names]
    results += [(await shop.dau(60)).rows, (await shop.wau(60)).rows, (await shop.mau(60)).rows]
    return results, shop.stats().totals, shop.stats().next_seq


def remove(directory):
    """Remove the files that the error's hint names."""
    for path in directory.glob("storage.db*"):
        path.unlink()


def header(path):
    path.write_bytes(b"no SQLite file.." + path.read_bytes()[16:])


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 8192 * 4096])


def pages(path):
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


@pytest.mark.parametrize("damage", [header, half, pages])
async def test_l2_20_a_damaged_database_is_an_error_and_is_rebuilt_the_same(life, damage):
    """The error names the files to remove; without them all is computed again from log and archive, and is the same."""
    make, directory, before = life
    damage(directory / "storage.db")
    with pytest.raises(StorageUnavailable) as caught:
        async with make(**OPTIONS) as shop:
            await answers(shop)
    assert "remove storage.db, storage.db-wal and storage.db-shm" in str(caught.value)
    remove(directory)
    async with make(**OPTIONS) as shop:
        assert await answers(shop) == before
        assert await shop.check() == []
        assert (await shop.archive()).rows == 13
        assert await answers(shop) == before


@pytest.mark.parametrize("left", ["storage.db", "storage.db-wal", ""])
async def test_l2_20_an_object_recovers_without_a_part_of_its_database(life, left):
    """After a crash, only the file or only its WAL is left, or an empty file: the same answers, whatever was lost."""
    make, directory, before = life
    async with make(**OPTIONS) as shop:
        await fill(shop, 1, first=300)
        await shop.rollup()
        expected = await answers(shop)
        assert expected != before
        crashed = {path.name: path.read_bytes() for path in directory.glob("storage.db*")}
    assert len(crashed["storage.db-wal"]) > 4096
    remove(directory)
    (directory / (left or "storage.db")).write_bytes(crashed[left] if left else b"")
    async with make(**OPTIONS) as shop:
        assert await answers(shop) == expected
        assert await shop.check() == []


@pytest.mark.parametrize("damages", [10, pytest.param(24, marks=pytest.mark.slow)])
async def test_l2_20_damage_anywhere_is_a_typed_error(life, tmp_path, damages):
    """Whatever bytes storage.db holds, opening and asking gives answers or a LakebedError; without it all is the same.

    A changed digit within a number is still a number: SQLite has no checksums, so a wrong answer may go unnoticed.
    """
    make, directory, before = life
    sound = (directory / "storage.db").read_bytes()
    whole = shutil.copytree(directory, tmp_path / "whole")
    failed = 0
    for seed in range(damages):
        rng = random.Random(seed)
        data = bytearray(sound)
        at, count = rng.randrange(len(data)), rng.choice([1, 1, 8, 200, 4096])
        data[at : at + count] = rng.randbytes(len(data[at : at + count]))
        shutil.rmtree(directory)
        shutil.copytree(whole, directory)
        (directory / "storage.db").write_bytes(data)
        try:
            async with make(**OPTIONS) as shop:
                await answers(shop)
                await shop.check()
        except LakebedError:
            failed += 1
    assert failed > 1
    remove(directory)
    async with make(**OPTIONS) as shop:
        assert await answers(shop) == before


@pytest.mark.parametrize("column", ["state", "sketches"])
async def test_l2_20_an_unreadable_state_of_a_rollup_is_an_error(life, column):
    """Bytes that SQLite takes for sound and no rollup wrote: StorageUnavailable where they are read, in every verb."""
    make, directory, before = life
    async with make(**OPTIONS) as shop:
        broken = "'['" if column == "state" else "x'c4021234'"
        await shop._components.storage.transact(lambda tx: tx.fetch(f"UPDATE rollup_groups SET {column} = {broken}"))
    async with make(**OPTIONS) as shop:
        loud = pytest.raises(StorageUnavailable, match=r"storage\.db is damaged.*remove storage\.db")
        with loud:
            await (shop.query("SELECT * FROM revenue") if column == "state" else shop.wau(60))
        await fill(shop, 3, first=400)
        with loud:
            await shop.rollup()
        assert (await shop.query(SEEN)).rows[0][2] == 136
    remove(directory)
    async with make(**OPTIONS) as shop:
        assert (await answers(shop))[2] == before[2] + 3
        assert await shop.check() == []


@pytest.mark.parametrize("damage", [half, pages])
async def test_l2_20_check_reports_damage_instead_of_raising(life, damage):
    """Whoever calls check() because something is wrong gets a list, with what to remove in it, and the other tiers."""
    make, directory, _ = life
    sound = (directory / "storage.db").read_bytes()
    async with make(**OPTIONS) as shop:
        damage(directory / "storage.db")
        await shop._components.storage._disconnect()  # SQLite's cache of the file is still valid
        problems = await shop.check()
        assert "storage" in {problem.where for problem in problems}
        assert not any("DatabaseError" in problem.message for problem in problems), "its code is SQLITE_CORRUPT"
        assert any("remove storage.db, storage.db-wal and storage.db-shm" in problem.message for problem in problems)
        remove(directory)
        (directory / "storage.db").write_bytes(sound)
        assert {problem.where for problem in await shop.check()} <= {"schedule"}, "a job may have met the damage"


async def test_l2_20_a_promoted_column_comes_back_with_its_declaration(life):
    """Without storage.db a column is known again when a class declares it; until then events keep it as JSON."""
    make, directory, _ = life
    async with make(**OPTIONS) as shop:
        before = (await shop.query(SEEN)).rows
    remove(directory)
    async with make(Analytics, promote={}, **OPTIONS) as plain:
        assert (await plain.query("SELECT count(*) FROM events")).scalar() == 133
        assert await plain.check() == []
    async with make(**OPTIONS) as shop:
        assert (await shop.query(SEEN)).rows == before
        assert await shop.check() == []


async def test_l2_21_an_old_backup_is_caught_up_from_the_archive(make, clock):
    """With a storage.db whose checkpoints are older than the log, the archive has the missing events."""
    async with make(**OPTIONS) as shop:
        await fill(shop, 20)
        await shop.rollup()
    backup = shop.directory.joinpath("storage.db").read_bytes()
    directory, before = await lived(make, clock)
    remove(directory)
    (directory / "storage.db").write_bytes(backup)
    async with make(**OPTIONS) as shop:
        assert await answers(shop) == before
        assert await shop.check() == []
        await shop.archive()
        assert await answers(shop) == before


async def test_l2_21_an_old_backup_without_its_archive_is_an_error(make, clock):
    """If neither log nor archive has the events between checkpoint and log, the object does not open."""
    async with make(**OPTIONS) as shop:
        await fill(shop, 20)
        await shop.rollup()
    backup = shop.directory.joinpath("storage.db").read_bytes()
    directory, _ = await lived(make, clock)
    remove(directory)
    (directory / "storage.db").write_bytes(backup)
    shutil.rmtree(directory / "archive")
    with pytest.raises((ArchiveConflict, LogBehind)) as caught:
        await make(**OPTIONS).open()
    assert "backup" in str(caught.value)
