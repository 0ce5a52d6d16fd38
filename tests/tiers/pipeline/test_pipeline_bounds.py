import asyncio
import errno

import pytest
from msgspec import Raw

from lakebed.clock import ManualClock
from lakebed.errors import Backpressure, LogUnavailable
from lakebed.events.batch import EventBatch
from tests.disks import FaultyDisk, GatedDisk, SlowSealing, reach
from tests.tiers.pipeline.logs import event, events, held, ids, opened


async def test_more_pending_events_than_the_bound_are_refused(tmp_path):
    """Beyond `pending_events` an append fails with Backpressure, which names the limit; earlier ones are stored."""
    disk = GatedDisk()
    async with opened(tmp_path, disk=disk, pending_events=5) as log:
        await log.append(events("a"))
        disk.gate.clear()
        disk.reached.clear()
        calls = [log.append(events("b"))]
        await reach(disk)
        calls += [log.append(events("c", "d", "e")), log.append(events("f", "g"))]
        refused = log.append(events("h"))
        assert refused.done()
        with pytest.raises(Backpressure, match="5 events wait for the disk, the limit is 5"):
            await refused
        disk.gate.set()
        await asyncio.gather(*calls)
        assert ids(log) == list("abcdefg")
        assert (log.failed, log.pending_events) == (1, 0)
        await log.append(events("h"))


async def test_more_pending_bytes_than_the_bound_are_refused(tmp_path):
    """A few large events count like many small ones: beyond `pending_bytes` an append fails with Backpressure too.

    This holds for lists of events and for blocks; appends work again once the pending ones are stored.
    """
    disk = GatedDisk()
    large = Raw(b'{"text":"%s"}' % (b"x" * 20_000))
    async with opened(tmp_path, disk=disk, pending_bytes=100_000) as log:
        await log.append(events("a"))
        for round_, shape in enumerate((list, EventBatch.of)):
            disk.gate.clear()
            disk.reached.clear()
            calls = [log.append(events(None))]
            await reach(disk)
            calls += [log.append(shape([event(None, properties=large)])) for _ in range(4)]
            refused = log.append(shape([event("late", properties=large)]))
            with pytest.raises(Backpressure, match="bytes of events wait for the disk, the limit is 100000"):
                await refused
            calls.append(log.append(events(None)))
            disk.gate.set()
            await asyncio.gather(*calls)
            assert (log.failed, log.pending_events, log.next_seq) == (round_ + 1, 0, 1 + 6 * (round_ + 1))


async def test_one_call_may_pass_the_bound_when_nothing_waits(tmp_path):
    """The bound is on waiting events: a single larger batch is stored, in one group, in order."""
    async with opened(tmp_path, pending_events=5, pending_bytes=100) as log:
        receipts = await log.append(events(*(f"m{i}" for i in range(50))))
        assert [receipt.seq for receipt in receipts] == list(range(50))


async def fill(log, count=4):
    for _ in range(count):
        await log.append(events(None, None))


async def test_when_sealing_is_slow_appends_wait(tmp_path):
    """With `tail_bytes` reached while sealing runs, appends wait for it; then they are stored. None fails."""
    disk = SlowSealing()
    async with opened(tmp_path, disk=disk, segment_events=2, tail_bytes=600, promotions=()) as log:
        waiting = [asyncio.ensure_future(fill(log)) for _ in range(3)]
        await asyncio.to_thread(disk.reached.wait, 20)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        disk.gate.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert [seq for seq, _ in held(log)] == list(range(24))


async def test_a_log_that_waited_for_sealing_with_nothing_pending_continues(tmp_path):
    """The bound may be reached by the last pending call: later calls, flush and close still work."""
    disk = SlowSealing()
    async with opened(tmp_path, disk=disk, segment_events=1, tail_bytes=1, promotions=()) as log:
        await log.append(events("a"))
        call = log.append(events("b"))
        await asyncio.to_thread(disk.reached.wait, 20)
        disk.gate.set()
        await asyncio.wait_for(call, 20)
        for name in "cdef":
            await asyncio.wait_for(log.append(events(name)), 20)
            await asyncio.wait_for(log.flush(), 20)
        assert ids(log) == list("abcdef")


async def test_when_sealing_keeps_failing_appends_are_refused_and_nothing_is_lost(tmp_path):
    """With `tail_bytes` reached and sealing failing: Backpressure with limit and cause; it ends when sealing works."""
    disk = FaultyDisk()
    disk.fail("sync_file", errno.ENOSPC, times=1000)
    async with opened(tmp_path, disk=disk, segment_events=2, tail_bytes=2000, promotions=()) as log:
        stored, refused = [], []
        for i in range(60):
            try:
                (receipt,) = await asyncio.wait_for(log.append(events(f"m{i}")), 20)
                stored.append((receipt.seq, receipt.message_id))
            except Backpressure as error:
                refused.append(str(error))
        assert stored
        assert len(refused) > 10
        assert all("the limit is 2000" in message and "No space left" in message for message in refused)
        assert log.tail_bytes < 4000, "memory is bounded"
        assert "No space left" in log.problems["seal"]
        assert held(log) == stored
        assert log.failed == len(refused)
        assert log.pending_events == 0
        disk.heal()
        while True:  # sealing is tried again with each call
            try:
                await asyncio.wait_for(log.append(events("last")), 20)
                break
            except Backpressure:
                continue
        await log.seal()
        assert "seal" not in log.problems
        assert held(log) == [*stored, (len(stored), "last")]
    async with opened(tmp_path, promotions=()) as log:
        assert held(log) == [*stored, (len(stored), "last")]


async def test_a_log_reopened_with_a_full_tail_seals_and_continues(tmp_path):
    """After a crash the tail may exceed its bound at opening: the first append waits for sealing and is stored."""
    async with opened(tmp_path, segment_events=1000) as log:
        await fill(log, 10)
    async with opened(tmp_path, segment_events=1000, tail_bytes=100, promotions=()) as log:
        (receipt,) = await asyncio.wait_for(log.append(events("next")), 20)
        assert receipt.seq == 20
        (receipt,) = await asyncio.wait_for(log.append(events("more")), 20)
        assert receipt.seq == 21
        assert [seq for seq, _ in held(log)] == list(range(22))


async def sealed_files(log, clock, count):
    for i in range(count):
        await log.append(events(f"m{i}"))
        await log.seal()
        clock.advance(10)


async def test_only_passed_and_old_files_are_pruned_oldest_first(tmp_path):
    """prune deletes a file when all of it was passed and retention and dedupe window are over; the oldest first."""
    clock, disk = ManualClock(), FaultyDisk()
    options = {"clock": clock, "disk": disk, "retention_s": 60, "dedupe_window_s": 30, "promotions": ()}
    async with opened(tmp_path, **options) as log:
        await sealed_files(log, clock, 5)
        assert await log.prune(5) == 0, "all is younger than the retention"
        clock.advance(20)  # the files are 70, 60, 50, 40 and 30 seconds old
        assert await log.prune(0) == 0
        assert await log.prune(1) == 1
        assert log.start_seq == 1
        assert await log.prune(5) == 1, "exactly as old as the retention goes"
        clock.advance(1000)
        assert await log.prune(4) == 2
        removed = [name for call, name in disk.calls if call == "remove" and name.endswith(".parquet")]
        assert removed == [f"{seq:020d}.parquet" for seq in range(4)]
        assert ids(log) == ["m4"]
        assert sorted(path.name for path in tmp_path.glob("*.ids")) == [f"{4:020d}.ids"]


async def test_the_dedupe_window_outlives_a_shorter_retention(tmp_path):
    """With a window longer than the retention files stay for the window: retries must still be verified."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock, retention_s=0, dedupe_window_s=100, promotions=()) as log:
        await sealed_files(log, clock, 2)
        assert await log.prune(2) == 0
        assert (await log.append(events("m0")))[0].status == "duplicate"
        clock.advance(100)
        assert await log.prune(2) == 2


async def test_next_seq_survives_pruning_everything(tmp_path):
    """An emptied log continues at the same seq after each reopening."""
    clock = ManualClock()
    options = {"clock": clock, "retention_s": 0, "dedupe_window_s": 1, "promotions": ()}
    for turn in range(3):
        async with opened(tmp_path, **options) as log:
            assert (log.start_seq, log.next_seq, held(log)) == (turn * 2, turn * 2, [])
            await sealed_files(log, clock, 2)
            assert await log.prune(log.next_seq) == 2
            assert list(tmp_path.glob("*.parquet")) == []


async def test_an_open_view_keeps_its_files(tmp_path):
    """While a view is open its files and newer ones are not deleted; after closing it, even twice, they are."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock, retention_s=0, dedupe_window_s=1, promotions=()) as log:
        await sealed_files(log, clock, 2)
        first, second = log.view(), log.view()
        await sealed_files(log, clock, 1)
        assert await log.prune(3) == 0
        first.close()
        first.close()
        assert await log.prune(3) == 0
        assert all(file.path.exists() for file in second.files)
        second.close()
        assert await log.prune(3) == 3


async def test_a_view_stays_as_it_was(tmp_path):
    """A view does not show events appended or sealed after it was opened."""
    async with opened(tmp_path, promotions=()) as log:
        await log.append(events("a"))
        with log.view() as view:
            await log.append(events("b"))
            await log.seal()
            await log.append(events("c"))
            assert view.tail["message_id"].to_pylist() == ["a"]
            assert (view.files, view.start_seq, view.end_seq) == ((), 0, 1)


@pytest.mark.parametrize("operation", ["remove", "create", "sync_directory"])
async def test_a_failed_prune_can_be_repeated(tmp_path, operation):
    """When deleting fails half-way the remaining files stay readable, reopen without a gap, and are deleted later."""
    clock, disk = ManualClock(), FaultyDisk()
    options = {"clock": clock, "disk": disk, "retention_s": 0, "dedupe_window_s": 1, "promotions": ()}
    async with opened(tmp_path, **options) as log:
        await sealed_files(log, clock, 3)
        disk.fail(operation, after=1 if operation == "remove" else 0)
        with pytest.raises(LogUnavailable, match="Input/output"):
            await log.prune(3)
        assert [seq for seq, _ in held(log)] == list(range(log.start_seq, 3))
    async with opened(tmp_path, **options) as log:
        assert log.next_seq == 3
        await log.prune(3)
        assert (held(log), list(tmp_path.glob("*.parquet"))) == ([], [])
