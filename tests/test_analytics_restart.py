"""Analytics over restarts: what survives them, what is rebuilt, and what is loud when files are gone."""

import shutil
from datetime import timedelta

import pytest

from lakebed import LogBehind, ManualClock
from lakebed.clock import from_us
from tests.analytics_fixtures import START, fill, maker

pytestmark = pytest.mark.integration  # an object that is opened again in each state


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    return maker(tmp_path, clock)


def live(shop):
    stats = shop.stats()
    return (
        stats.last_minute,
        stats.last_hour,
        stats.events_last_minute,
        stats.events_last_hour,
        stats.active,
        stats.totals,
        stats.next_seq,
    )


@pytest.mark.parametrize("archived", [False, True], ids=["unsealed", "archived and pruned"])
async def test_live_counters_survive_a_restart(make, clock, archived):
    """Active people, the sliding minute and hour and the lifetime totals are after a restart what they were before."""
    options = {"retention_s": 0.0, "dedupe_window_s": 60.0}
    async with make(**options) as shop:
        await fill(shop, 20)
        clock.advance(5000)  # longer than the hour for which the log is kept for the counters
        await fill(shop, 15, first=20)
        clock.advance(280)
        await fill(shop, 5, first=100)
        await shop.track("login", anonymous_id="anon")
        clock.advance(30)
        await shop.identify("zed")
        if archived:
            await shop.archive()
            await shop.rollup()
            assert shop._components.pipeline.start_seq >= 20
        before = live(shop)
        assert before[:2] == (7, 22)
        assert before[4:] == (7, {"order": 21, "view": 19, "login": 1}, 42)
    async with make(**options) as shop:
        assert live(shop) == before
        clock.advance(31)
        assert shop.stats().last_minute == 1
        await shop.track("order", user_id="late")
        assert shop.stats().totals["order"] == 22
    async with make(**options) as shop:
        assert shop.stats().totals == {"order": 22, "view": 19, "login": 1}
        clock.advance(4000)
        assert live(shop)[:5] == (0, 0, {}, {}, 0)


async def test_a_missing_log_is_an_error(make):
    """Deleting the log while storage.db knows of its events is LogBehind, not a fresh start."""
    async with make() as shop:
        await fill(shop, 25)
        await shop.rollup()
        log = shop.directory / "log"
    kept = log.with_name("kept")
    shutil.copytree(log, kept)
    shutil.rmtree(log)
    with pytest.raises(LogBehind) as behind:
        await make().open()
    assert behind.value.offset == 0
    shutil.rmtree(log, ignore_errors=True)
    kept.rename(log)
    async with make() as shop:
        assert shop.stats().next_seq == 25
        assert await shop.check() == []


async def test_an_archive_without_log_and_storage_is_an_error(make):
    """Where only the archive is left, new events would take the seqs of archived ones: LogBehind."""
    async with make() as shop:
        await fill(shop, 25)
        await shop.archive()
        directory = shop.directory
    shutil.rmtree(directory / "log")
    for path in directory.glob("storage.db*"):
        path.unlink()
    with pytest.raises(LogBehind):
        await make().open()


async def derived(shop):
    answers = [
        await shop.query(f"SELECT * FROM {name} ORDER BY ALL") for name in ("hourly_events", "daily_metrics", "revenue")
    ]
    answers += [await shop.dau(30), await shop.wau(30), await shop.mau(30)]
    return [answer.rows for answer in answers], live(shop)


async def test_deleted_storage_is_rebuilt_the_same(make, clock):
    """storage.db holds nothing but what log and archive give: without it, rollups and totals come back as they were."""
    async with make(retention_s=0.0, dedupe_window_s=60.0) as shop:
        for first in range(0, 60, 15):
            await fill(shop, 15, first=first, at=START - timedelta(days=first // 4))
            clock.advance(40)
        await shop.archive()
        clock.advance(4000)
        await shop.rollup()
        await fill(shop, 13, first=60)
        await shop.rollup()
        assert shop._components.pipeline.start_seq > 0
        before = await derived(shop)
        directory = shop.directory
    for path in directory.glob("storage.db*"):
        path.unlink()
    async with make(retention_s=0.0, dedupe_window_s=60.0) as shop:
        assert await derived(shop) == before
        assert await shop.check() == []
        assert (await shop.archive()).rows == 13
        assert await derived(shop) == before


async def test_no_later_event_changes_an_as_of_answer(make, clock):
    """No event gets a time that an `as_of` answer covers, also when the clock is set back and the object opens again.

    Before any event, too: an answer of zero stays zero.
    """
    for number in range(3):
        moment = from_us(clock.now_us())
        async with make() as shop:
            assert (await shop.query("SELECT count(*) FROM events", as_of=moment)).scalar() == number
        clock.step(-30)
        async with make() as shop:
            await shop.track("late")
            clock.advance(60)
            assert (await shop.query("SELECT count(*) FROM events", as_of=moment)).scalar() == number
            assert (await shop.dau(start=moment, end=moment, as_of=moment))[0].events == number


async def test_a_clock_set_back_forgets_no_message_id(make, clock):
    """A retry within the window is a duplicate, also where the object was opened while the clock was far ahead."""
    async with make(dedupe_window_s=600.0) as shop:
        await fill(shop, 12)
        await shop.archive()
    clock.step(86_400)
    async with make(dedupe_window_s=600.0) as shop:
        clock.step(-86_400)
        assert {receipt.status for receipt in await fill(shop, 12)} == {"duplicate"}
