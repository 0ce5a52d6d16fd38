import asyncio

from lakebed.clock import ManualClock
from tests.disks import GatedDisk, reach
from tests.tiers.pipeline.logs import NOW, events, ids, opened, received


async def test_received_at_rises_whatever_the_wall_clock_does(tmp_path):
    """`received_at` rises from group to group: time standing still, an hour back, a year ahead and back, reopened."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock) as log:
        for change in (0, 0, -3600, 5, 365 * 86400, -366 * 86400, 0):
            clock.step(change)
            await log.append(events(None, None))
    async with opened(tmp_path, clock=clock) as log:
        await log.append(events(None))
        await log.seal()
    async with opened(tmp_path, clock=clock) as log:
        await log.append(events(None))
        times = received(log)
        groups = [times[i] for i in range(0, 14, 2)] + times[14:]
        assert times[:14:2] == times[1:14:2], "one value a group"
        assert groups == sorted(set(groups))


async def test_received_at_rises_after_everything_was_pruned(tmp_path):
    """The last `received_at` survives pruning all and reopening, with a clock that went back."""
    clock = ManualClock()
    options = {"clock": clock, "retention_s": 0, "dedupe_window_s": 1}
    async with opened(tmp_path, **options) as log:
        await log.append(events("a"))
        (last,) = received(log)
        await log.seal()
        clock.advance(10)
        assert await log.prune(1) == 1
    clock.step(-3600)
    async with opened(tmp_path, **options) as log:
        await log.append(events("b"))
        assert received(log) == [last + 1]


async def test_after_settle_nothing_arrives_at_or_before_its_time(tmp_path):
    """settle(T) returns when no event can come that was received at or before T, also if the clock steps back."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock) as log:
        await log.append(events("a"))
        cut = clock.now_us()
        await log.settle(cut)
        clock.step(-3600)
        await log.append(events("b"))
        await log.append(events("c"))
        assert received(log)[1:] == [cut + 1, cut + 2]


async def test_settle_waits_for_the_commit_in_flight(tmp_path):
    """A commit that was given a time at or before T is over, and visible, when settle(T) returns."""
    disk = GatedDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("a"))
        disk.gate.clear()
        disk.reached.clear()
        first = log.append(events("b"))
        await reach(disk)
        settled = asyncio.ensure_future(log.settle(NOW + 10))
        later = log.append(events("c"))
        await asyncio.sleep(0)
        assert not settled.done()
        disk.gate.set()
        await settled
        assert first.done()
        assert ids(log)[:2] == ["a", "b"]
        await later
        assert received(log) == [NOW, NOW + 1, NOW + 11]


async def test_settling_an_idle_log_returns_at_once(tmp_path):
    """settle does not wait when no commit is running, before and after events."""
    async with opened(tmp_path) as log:
        await asyncio.wait_for(log.settle(NOW), 5)
        await log.append(events("a"))
        await asyncio.wait_for(log.settle(NOW + 5), 5)
