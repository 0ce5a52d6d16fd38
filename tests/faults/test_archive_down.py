"""The archive does not answer: calls that need it raise errors, all others work, and nothing is lost."""

import asyncio
import sqlite3

import pytest

from lakebed import ArchiveConflict, ArchiveUnavailable, QueryTimeout
from tests.faults.orders import START, fill, holds, move_all


async def test_query_44_queries_that_need_an_unavailable_archive_fail(moody, clock):
    """A query that needs the archive raises while it is down, without a partial answer; others stay exact."""
    catalog, make = moody
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
        assert shop._components.pipeline.start_seq == 20
        await fill(shop, 20, 25)
        catalog.mood = "down"
        for options in ({}, {"as_of": START}, {"snapshot": 1}):
            with pytest.raises(ArchiveUnavailable, match="Connection refused"):
                await shop.query("SELECT count(*) FROM events", **options)
        with pytest.raises(ArchiveUnavailable):
            await shop.dau(1, as_of=START)
        assert (await shop.dau(1))[0].events == 25
        assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(25)) / 2
        assert (await shop.track("order", {"revenue": 12.5}, message_id="m25")).seq == 25
        assert [problem.where for problem in await shop.check()] == ["archive"]
        catalog.calm()
        assert await holds(shop, 26)
        assert await shop.check() == []


async def test_query_44_an_object_opens_while_its_archive_is_unavailable(moody, clock):
    """The log needs no catalog: the object opens, tracks and reports the problem; later it has all events."""
    catalog, make = moody
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
    catalog.mood = "down"
    async with make() as shop:
        await fill(shop, 20, 30)
        assert [problem.where for problem in await shop.check()] == ["archive"]
        with pytest.raises(ArchiveUnavailable):
            await shop.archive()
    async with make() as shop:  # it also closed without an error
        catalog.calm()
        assert (await shop.archive()).rows == 10
        assert await holds(shop, 30)


async def test_l3_27_repeated_conflicts_end_an_archive_run(moody, clock):
    """After repeated conflicts an archive run ends with an error and loses nothing; without conflicts it works."""
    catalog, make = moody
    async with make() as shop:
        await fill(shop, 0, 10)
        await shop.archive()
        await fill(shop, 10, 30)
        clock.advance(5000)
        catalog.mood = "conflict"
        for _ in range(3):
            before = catalog.asked
            with pytest.raises(ArchiveConflict, match="20 times in a row"):
                await shop.archive()
            assert catalog.asked - before < 50, "a storm is not answered by a storm"
            await shop.rollup()
            assert shop._components.pipeline.start_seq == 10, "the log let go of what is archived nowhere"
            assert await holds(shop, 30)
        catalog.calm()
        assert (await shop.archive()).rows == 20
        assert shop._components.pipeline.start_seq == 30
        assert await holds(shop, 30)
        assert await shop.check() == []


async def test_l3_26_jobs_work_once_when_every_commit_answer_is_lost(moody, clock):
    """If each commit is applied and each answer lost, every job still does its work once."""
    catalog, make = moody
    async with make() as shop:
        catalog.mood = "lost"
        await fill(shop, 0, 10)
        with pytest.raises(ArchiveUnavailable, match="cannot be created"):
            await shop.archive()
        assert (await shop.archive()).rows == 10
        await fill(shop, 10, 25)
        assert (await shop.archive()).rows == 15
        assert (await shop.archive()).rows == 0
        assert (await shop.compact()).files_after == 1
        for job in (shop.expire, shop.tidy, shop.collect_garbage):
            try:
                await job()
            except ArchiveUnavailable as error:
                assert "the response was lost" in str(error)  # noqa: PT017 - jobs with nothing to do have no answer
        assert len(await shop.snapshots()) == 1
        clock.advance(5000)
        await shop.rollup()
        assert await holds(shop, 25)
        assert await shop.check() == []


async def test_l3_28_a_catalog_that_does_not_answer_blocks_no_event(moody, clock):
    """A silent catalog delays no event and no rollup; queries end at their timeout, and it gets few requests.

    When it answers again, waiting calls end at once: cancelled calls left no queue of requests.
    """
    catalog, make = moody
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
        catalog.hang()
        archiving = asyncio.ensure_future(shop.archive())
        await asyncio.to_thread(catalog.reached.wait, 20)
        before = catalog.asked
        async with asyncio.timeout(20):
            for number in range(20, 40):
                await fill(shop, number, number + 1)
            assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(40)) / 2
            waiting = [shop.query("SELECT count(*) FROM events", timeout=0.05) for _ in range(30)]
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {QueryTimeout}
        assert catalog.asked == before
        assert not archiving.done()
        catalog.calm()
        assert (await archiving).rows == 20
        assert await holds(shop, 40)
        assert catalog.asked - before < 15, "thirty questions that nobody waits for were asked all the same"
        assert shop._components.archive._pins.paths() == set()
        assert await shop.check() == []


async def test_l3_28_a_shared_catalog_read_begins_after_each_request_for_it(moody):
    """A request gets no answer of a read that began before it; requests that wait for the next read share it.

    A cancelled request does not affect the others, and no pin stays.
    """
    catalog, make = moody
    async with make() as shop:
        await fill(shop, 0, 10)
        await shop.archive()
        archive = shop._components.archive
        catalog.hang()
        before = catalog.asked
        begun = asyncio.ensure_future(archive.watermark())
        await asyncio.to_thread(catalog.reached.wait, 20)
        sharing = [asyncio.ensure_future(archive.watermark()) for _ in range(5)]
        await asyncio.sleep(0)
        sharing[0].cancel()
        sharing[4].cancel()
        catalog.calm()
        assert await begun == 10
        outcomes = await asyncio.gather(*sharing, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes[1:4]] == ["10"] * 3
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert isinstance(outcomes[4], asyncio.CancelledError)
        assert catalog.asked - before == 2
        assert archive._pins._held == {}
        assert archive._reads == {}


async def test_l3_28_a_log_over_its_limit_while_the_archive_is_unavailable(moody, clock):
    """Archiving started by `log_bytes` fails without failing an event, is a problem meanwhile, and works later.

    The log keeps all events meanwhile.
    """
    catalog, make = moody
    async with make(log_bytes=1) as shop:
        catalog.mood = "down"
        await fill(shop, 0, 35)
        await shop._components.pipeline.seal()
        clock.advance(61)  # not more often than once a minute
        await fill(shop, 35, 36)
        await shop._components.maintenance.close()  # waits for background jobs
        assert any("archiving it failed" in problem.message for problem in await shop.check())
        assert shop._components.pipeline.start_seq == 0
        catalog.calm()
        clock.advance(61)
        await fill(shop, 36, 37)
        await shop._components.maintenance.close()
        assert shop.stats().watermark == 37
        assert await holds(shop, 37)
        assert await shop.check() == []


@pytest.mark.slow
async def test_l3_28_archiving_waits_for_a_locked_catalog_and_then_fails(make, clock, tmp_path):
    """While another program locks the object's own catalog, archiving waits some seconds, and then raises an error.

    Events are stored meanwhile; queries are answered from the known state. Without the lock the run works again.
    """
    async with make() as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
        holder = sqlite3.connect(tmp_path / "shop/archive/catalog.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        await fill(shop, 20, 30)
        archiving = asyncio.ensure_future(shop.archive())
        for number in range(30, 40):
            await fill(shop, number, number + 1)
            assert await holds(shop, number + 1)
        assert not archiving.done()
        with pytest.raises(ArchiveUnavailable, match="locked"):
            await archiving
        assert [problem.where for problem in await shop.check()] == ["archive"]
        holder.execute("ROLLBACK")
        holder.close()
        assert (await shop.archive()).rows == 20
        assert await holds(shop, 40)
        assert await shop.check() == []
