"""What the hourly job and the answers that rest on it do."""

import asyncio

import pytest

from lakebed import Analytics, InvalidRollup, LogUnavailable, ManualClock, Rollup
from lakebed.disk import Disk


async def test_max_staleness_may_leave_out_the_newest_events(tmp_path):
    """`max_staleness` may leave the newest events out; without it every answer has all of them."""
    clock = ManualClock()
    async with Analytics("shop", root=tmp_path, clock=clock) as shop:
        await shop.track("Seen", user_id="a")
        assert (await shop.dau(1))[0].dau == 1
        await shop.track("Seen", user_id="b")
        clock.advance(60)
        assert (await shop.dau(1, max_staleness=60))[0].dau == 1
        clock.advance(1)
        assert (await shop.dau(1, max_staleness=60))[0].dau == 2
        await shop.track("Seen", user_id="c")
        assert (await shop.dau(1))[0].dau == 3
        assert await shop.check() == []


async def test_an_old_segment_is_sealed_without_traffic(tmp_path):
    """The hourly job seals what `segment_age_s` says is old, and leaves what is young."""
    clock = ManualClock()
    async with Analytics("shop", root=tmp_path, clock=clock, segment_age_s=600) as shop:
        await shop.track("Seen")
        await shop.rollup()
        assert not list((tmp_path / "shop" / "log").glob("*.parquet"))
        clock.advance(600)
        await shop.rollup()
        await shop.track("Seen")
        await shop.archive()
        assert [path.name for path in sorted((tmp_path / "shop" / "log").glob("*.parquet"))] == [
            "00000000000000000000.parquet",
            "00000000000000000001.parquet",
        ]
        assert (await shop.query("SELECT count(*) FROM events")).scalar() == 2
        assert await shop.check() == []


async def test_a_broken_rollup_does_not_block_the_others(tmp_path):
    """A rollup that cannot be computed is loud where it is asked for, and in check(); other answers stay exact."""

    class Shop(Analytics):
        broken = Rollup("broken", measures={"n": "count()"}, where="CAST(event AS INTEGER) > 0")

    async with Shop("shop", root=tmp_path) as shop:
        await shop.track("Seen", user_id="a")
        with pytest.raises(InvalidRollup):
            await shop.rollup()
        with pytest.raises(InvalidRollup):
            await shop.query("SELECT * FROM broken")
        assert (await shop.dau(1))[0].dau == 1
        assert [problem.where for problem in await shop.check()] == ["rollups"]


async def test_the_failure_of_a_cancelled_track_reaches_on_error(tmp_path):
    """If the await of a track was cancelled and the track then fails, on_error hears of it."""

    class Dying(Disk):
        dead = False

        def sync(self, descriptor):
            if self.dead:
                raise OSError(5, "dead")
            super().sync(descriptor)

    failures, disk = [], Dying()
    async with Analytics("shop", root=tmp_path, disk=disk, on_error=failures.append) as shop:
        await shop.track("Seen")
        disk.dead = True
        waiting = asyncio.create_task(_awaited(shop.track("Lost")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
        await shop.flush()
        disk.dead = False
        await shop.track("Seen")
        assert [type(failure) for failure in failures] == [LogUnavailable]


async def _awaited(ack):
    return await ack


@pytest.mark.integration
async def test_a_query_spills_into_the_directory_of_its_object(tmp_path):
    """What does not fit in memory goes to the object's directory, not to where the app was started."""
    async with Analytics("shop", root=tmp_path, query_memory_bytes=30 << 20, query_threads=1) as shop:
        await shop.track("Seen")
        sql = "SELECT count(*) FROM (SELECT range AS r, md5(range::VARCHAR) AS m FROM range(1500000) ORDER BY m)"
        assert (await shop.query(sql)).scalar() == 1_500_000
        assert (tmp_path / "shop" / "spill").is_dir()


async def test_a_log_over_its_limit_is_archived_once(tmp_path):
    """Beyond `log_bytes` what is sealed is archived; files that only retention keeps start nothing again."""
    clock = ManualClock()
    shop = Analytics("shop", root=tmp_path, clock=clock, segment_events=10, log_bytes=1)
    async with shop:
        for at in range(25):  # two sealed segments and a half
            await shop.track("Seen", message_id=f"m{at}")
            clock.advance(60)
        while not await shop.snapshots():
            await shop.track("Seen")
            await asyncio.sleep(0)
        await shop.archive()
        before = len(await shop.snapshots())
        for _ in range(5):
            clock.advance(61)
            await shop.track("Seen")
            await asyncio.sleep(0)
    async with shop:  # closing waited for whatever had begun in the background
        assert len(await shop.snapshots()) == before
        assert list((tmp_path / "shop" / "log").glob("*.parquet")), "retention keeps them"
        assert await shop.check() == []


async def test_a_call_with_a_wrong_argument_counts_as_no_event(tmp_path):
    """A TypeError is the program's mistake: it is raised at once, and the books still balance."""
    async with Analytics("shop", root=tmp_path) as shop:
        with pytest.raises(TypeError):
            shop.page("Home", usr_id="a")
        await shop.track("Seen")
        assert shop.stats().received == shop.stats().stored == 1
        assert await shop.check() == []
