"""Files of the archive that are cut or missing: every answer that needs them is a typed error that names the file."""

import os
from pathlib import Path

import pytest

from lakebed import ArchiveUnavailable, LogCorrupted, QueryError
from lakebed.clock import from_us
from tests.faults.orders import START, fill, holds, move_all


def files(directory, pattern):
    return sorted(path for path in directory.rglob(pattern) if path.is_file())


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
async def directory(make, clock, tmp_path):
    """An object with 20 events in the archive alone; 15 more are archived and in the log, too."""
    async with make(retention_s=1000.0) as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
        assert shop._components.pipeline.start_seq == 20
        await fill(shop, 20, 35)
        await shop.archive()
        await shop.compact()  # one file a day
    return tmp_path / "shop"


@pytest.mark.parametrize("damage", [cut, Path.unlink])
async def test_l3_33_a_damaged_data_file_fails_only_the_queries_that_need_it(make, clock, directory, damage):
    """Each query of a damaged file's events raises an error that names the file; other queries are answered.

    Rebuilding rollups from the file raises the error too. The log is not pruned while the archive is damaged.
    """
    async with make(retention_s=1000.0) as shop, shop._components.archive.pin() as view:
        (path,) = (Path(file.path) for file in view.files)
    content = path.read_bytes()
    damage(path)
    moment = from_us(clock.now_us())
    async with make(retention_s=1000.0) as shop:
        for options in ({}, {"as_of": moment}, {"as_of": START}):
            with pytest.raises((QueryError, ArchiveUnavailable), match=path.name):
                await shop.query("SELECT sum(revenue) FROM events", **options)
        with pytest.raises((QueryError, ArchiveUnavailable), match=path.name):
            await shop.dau(1, as_of=START)
        with pytest.raises(ArchiveUnavailable, match=path.name):
            [table async for table in shop._components.history.read(0, 35)]
        assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(35)) / 2
        assert [path.name in problem.message for problem in await shop.check()] == [True]
    for storage in directory.glob("storage.db*"):
        storage.unlink()
    with pytest.raises(ArchiveUnavailable, match=path.name):
        await make(retention_s=1000.0).open()
    path.write_bytes(content)
    async with make(retention_s=1000.0) as shop:
        assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(35)) / 2
        assert await holds(shop, 35)
        assert await shop.check() == []


@pytest.mark.parametrize("damage", [cut, Path.unlink])
@pytest.mark.parametrize("pattern", ["snap-*.avro", "*-m*.avro", "*.metadata.json"])
async def test_l3_33_damaged_metadata_stops_the_archive_and_not_the_log(make, clock, directory, pattern, damage):
    """A damaged manifest list, manifest or metadata.json is an error of the archive; the log works, and keeps all.

    After the files are put back the archive works again, and newer events are archived.
    """
    kept = {path: path.read_bytes() for path in files(directory / "archive", pattern)}
    for path in kept:
        damage(path)
    async with make(retention_s=1000.0) as shop:
        await fill(shop, 35, 55)
        clock.advance(9000)
        for job in (shop.archive, shop.compact, shop.collect_garbage):
            with pytest.raises(ArchiveUnavailable):
                await job()
        with pytest.raises(ArchiveUnavailable, match="archive"):
            await shop.query("SELECT count(*) FROM events")
        await shop.rollup()
        assert shop._components.pipeline.start_seq <= 35, "the log let go of what is archived nowhere"
        assert [problem.where for problem in await shop.check()] == ["archive"]
        for path, data in kept.items():
            path.write_bytes(data)
        assert (await shop.archive()).rows == 20
        assert await holds(shop, 55)
        assert await shop.check() == []


async def test_l3_33_a_damaged_commit_is_compared_with_the_log(make, clock):
    """After a crash between commit and mark the archive is compared with the log; if that fails, it is an error."""
    async with make() as shop:
        await fill(shop, 0, 10)
        await shop.archive()
        await fill(shop, 10, 30)
        await shop.rollup()
        (table,) = [table async for table in shop._components.history.read(10, 30)]
        await shop._components.archive.append(table, 10, 30)  # the crash is here
        async with shop._components.archive.pin() as view:
            path = Path(view.files[-1].path)
    whole = path.read_bytes()
    cut(path)
    async with make() as shop:
        clock.advance(9000)
        for _ in range(2):
            with pytest.raises(ArchiveUnavailable, match=path.name):
                await shop.archive()
            await shop.rollup()
            assert shop._components.pipeline.start_seq == 10, "the log let go of what only a damaged file has"
        path.write_bytes(whole)
        assert (await shop.archive()).rows == 0
        assert shop._components.pipeline.start_seq == 30
        assert await holds(shop, 30)


async def test_l3_33_a_damaged_sealed_segment_is_an_error_of_as_of(make, clock, tmp_path):
    """An `as_of` within a sealed segment that is damaged is LogCorrupted, with its path."""
    async with make() as shop:
        for number in range(20):
            await fill(shop, number, number + 1)
            clock.advance(1)
        await shop._components.pipeline.seal()
        path = files(tmp_path / "shop/log", "*.parquet")[0]
        cut(path)
        with pytest.raises(LogCorrupted) as damaged:
            await shop.query("SELECT count(*) FROM events", as_of=START)
        assert damaged.value.path == path
