import asyncio
import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import ManualClock
from lakebed.errors import DiskFull, LogCorrupted, LogUnavailable, ObjectClosed
from lakebed.tiers.pipeline.segment import log_path, scan
from tests.disks import FaultyDisk, GatedDisk, reach
from tests.tiers.pipeline.logs import NOW, event, events, held, ids, make, marker, opened


async def test_a_receipt_never_comes_before_the_write_and_the_sync_of_its_frame(tmp_path):
    """Durable before ack: when receipts arrive, the last disk operations were write, sync and marker of the frame."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        for i in range(3):
            disk.calls.clear()
            await log.append(events(f"m{i}"))
            name = log_path(tmp_path, 0).name + (".tmp" if i == 0 else "")
            operations = [call for call, file in disk.calls if ".log" in file]
            assert operations[-3:] == ["write", "sync", "write"]
            assert name.startswith(log_path(tmp_path, 0).name)
            assert scan(log_path(tmp_path, 0)).durable == log_path(tmp_path, 0).stat().st_size


async def test_nothing_is_acknowledged_or_seen_while_its_sync_runs(tmp_path):
    """While the sync of a frame runs its calls wait, and no view shows its events."""
    disk = GatedDisk()
    seen = []
    async with opened(tmp_path, disk=disk, on_commit=lambda block, _: seen.extend(block.message_ids)) as log:
        await log.append(events("a"))
        disk.gate.clear()
        disk.reached.clear()
        waiting = log.append(events("b"))
        await reach(disk)
        assert not waiting.done()
        assert (ids(log), log.next_seq, len(seen), log.pending_events) == (["a"], 1, 1, 1)
        disk.gate.set()
        assert (await waiting)[0].seq == 1
        assert (ids(log), len(seen), log.pending_events) == (["a", "b"], 2, 0)


async def test_calls_made_while_a_sync_runs_share_the_next_one(tmp_path):
    """Group commit: a thousand calls during one sync share the next sync, and get their answers in order."""
    disk = GatedDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("first"))
        disk.gate.clear()
        disk.reached.clear()
        calls = [log.append(events("second"))]
        await reach(disk)
        before = disk.count("sync", ".log")
        calls += [log.append(events(f"m{i}")) for i in range(1000)]
        disk.gate.set()
        receipts = [receipt for call in calls for receipt in await call]
        assert [receipt.seq for receipt in receipts] == list(range(1, 1002))
        assert disk.count("sync", ".log") - before == 2, "the one that was let through, and one for all the others"


async def test_durability_os_writes_and_does_not_sync(tmp_path):
    """durability="os" acknowledges after the write, without a sync; `sync` makes the earlier events durable."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk, durability="os") as log:
        await log.append(events("a"))
        before = disk.count("sync", ".log")
        await log.append(events("b"))
        assert disk.count("sync", ".log") == before
        await log.sync()
        assert scan(log_path(tmp_path, 0)).durable == log_path(tmp_path, 0).stat().st_size
    async with opened(tmp_path) as log:
        assert ids(log) == ["a", "b"]


@pytest.mark.parametrize("failures", [1, 3])
async def test_after_a_failed_sync_nothing_is_acknowledged_and_the_descriptor_is_never_used_again(tmp_path, failures):
    """A failed sync: LogUnavailable, no retry on that file, the next append starts a new one, no event is doubled."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("a", "b"))
        (descriptor,) = disk.open_descriptors
        disk.fail("sync", name=".log", times=failures)
        disk.calls.clear()
        with pytest.raises(LogUnavailable, match="Input/output"):
            await log.append(events("c"))
        assert [call for call, _ in disk.calls] == ["free_bytes", "write", "sync", "close"]
        assert descriptor not in disk.open_descriptors
        assert "Input/output" in log.problems["append"]
        for _ in range(failures - 1):
            with pytest.raises(LogUnavailable):
                await log.append(events("c"))
        assert (await log.append(events("c")))[0].seq == 2
        assert "append" not in log.problems
        assert held(log) == [(0, "a"), (1, "b"), (2, "c")]
        assert log_path(tmp_path, 2).exists()
    async with opened(tmp_path) as log:
        assert held(log) == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.parametrize("operation", ["write", "create", "write header", "replace", "sync_directory", "sync", "close"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
async def test_any_failure_in_any_step_loses_and_doubles_nothing(tmp_path, operation, code):
    """After any failure, in a frame or between segments: a typed error, and all acknowledged events once, in order."""
    disk = FaultyDisk()
    acknowledged, errors = [], []
    async with opened(tmp_path, disk=disk, segment_events=2, promotions=()) as log:
        for i in range(12):
            if i % 4 == 2:
                name = tmp_path.name if operation == "sync_directory" else ".log"
                disk.fail(operation, code, name=name, times=2, partial=150)
            try:
                (receipt,) = await log.append(events(f"m{i}"))
                acknowledged.append((receipt.seq, receipt.message_id))
            except (DiskFull, LogUnavailable) as error:
                errors.append(type(error))
        disk.heal()
        assert held(log) == acknowledged
        assert acknowledged
        assert set(errors) <= {DiskFull if code == errno.ENOSPC else LogUnavailable}
        assert errors or operation == "close"
        seal_problem = log.problems.get("seal")
        assert seal_problem is None or operation in ("replace", "sync_directory")
    async with opened(tmp_path, promotions=()) as log:
        assert held(log) == acknowledged
        await log.append(events("next"))
        await log.seal()
        assert [message_id for _, message_id in held(log)] == [*(name for _, name in acknowledged), "next"]
    assert disk.open_descriptors == {}


async def test_a_failed_group_that_reached_the_disk_is_not_doubled_by_its_retry(tmp_path):
    """A write can be durable though never acknowledged: reopening may surface it, and its retry is then a duplicate."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("a"))
        disk.fail("sync", name=".log")
        with pytest.raises(LogUnavailable):
            await log.append(events("b"))
    async with opened(tmp_path) as log:
        assert ids(log) == ["a", "b"]
        (receipt,) = await log.append(events("b"))
        assert (receipt.status, receipt.seq) == ("duplicate", 1)


async def test_below_the_headroom_tracking_is_refused_and_the_rest_works(tmp_path):
    """At the low-water mark: DiskFull naming both numbers; reads, duplicates, sealing and reopening still work."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk, headroom_bytes=1000) as log:
        disk.free = 1000
        await log.append(events("a"))
        disk.free = 999
        disk.calls.clear()
        with pytest.raises(DiskFull, match="999 bytes are free, the headroom is 1000"):
            await log.append(events("b"))
        assert {call for call, _ in disk.calls} == {"free_bytes"}, "nothing was written"
        assert (await log.append(events("a")))[0].status == "duplicate"
        assert ids(log) == ["a"]
        await log.seal()
    async with opened(tmp_path, disk=disk, headroom_bytes=1000) as log:
        assert ids(log) == ["a"]
        disk.free = 1000
        assert (await log.append(events("b")))[0].seq == 1


async def test_a_disk_that_cannot_say_how_full_it_is_is_unavailable(tmp_path):
    """When free space cannot be read the call fails with LogUnavailable, as for any other failure of the disk."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        disk.fail("free_bytes")
        with pytest.raises(LogUnavailable):
            await log.append(events("a"))
        await log.append(events("a"))


async def test_new_segments_begin_at_each_limit(tmp_path):
    """A segment is rolled at its events, its bytes or its age, checked when the next group comes."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock, segment_events=2, segment_age_s=60, promotions=()) as log:
        for _ in range(3):
            await log.append(events(None))
        await log.seal()
        await log.append(events(None))
        clock.advance(61)
        await log.append(events(None))
        await log.seal()
        with log.view() as view:
            assert [(file.first_seq, file.end_seq) for file in view.files] == [(0, 2), (2, 3), (3, 4), (4, 5)]
    async with opened(tmp_path / "bytes", segment_bytes=4000, promotions=()) as log:
        for _ in range(6):
            await log.append(events(None))
        await log.seal()
        with log.view() as view:
            assert [(file.first_seq, file.end_seq) for file in view.files] == [(0, 4), (4, 6)]


async def test_a_cancelled_append_is_stored_once_and_its_group_is_answered(tmp_path):
    """Cancelling an append does not cancel the storing of its events; other callers get their receipts."""
    disk = GatedDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("a"))
        disk.gate.clear()
        disk.reached.clear()
        in_flight = log.append(events("b"))
        await reach(disk)
        waiting = [log.append(events(name)) for name in "cde"]
        in_flight.cancel()
        waiting[1].cancel()
        disk.gate.set()
        assert [(await waiting[i])[0].seq for i in (0, 2)] == [2, 4]
        assert held(log) == list(enumerate("abcde"))
        assert (await log.append(events("d")))[0].status == "duplicate"


async def test_flush_waits_for_calls_whose_callers_were_cancelled(tmp_path):
    """flush returns when every append so far has its receipts, also when the last caller was cancelled."""
    disk = GatedDisk()
    async with opened(tmp_path, disk=disk) as log:
        disk.gate.clear()
        calls = [log.append(events(name)) for name in "ab"]
        calls[-1].cancel()
        flushed = asyncio.ensure_future(log.flush())
        await reach(disk)
        assert not flushed.done()
        disk.gate.set()
        await flushed
        assert (ids(log), calls[0].done()) == (["a", "b"], True)


async def test_flush_does_not_raise_the_errors_of_appends(tmp_path):
    """A failure reaches the callers of append, not of flush; an idle log is flushed immediately."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.flush()
        disk.fail("sync", name=".log", times=3)
        call = log.append(events("a"))
        await log.flush()
        assert isinstance(call.exception(), LogUnavailable)


async def test_an_empty_append_is_answered(tmp_path):
    """An append of no events returns no receipts and writes nothing."""
    async with opened(tmp_path) as log:
        assert await log.append([]) == []
        assert list(tmp_path.iterdir()) == []


async def test_a_listener_that_fails_costs_no_receipt(tmp_path):
    """When `on_commit` raises, the events are stored and acknowledged all the same, and the loop reports the error."""

    def listen(_events, _received):
        raise RuntimeError("listener")

    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(str(context.get("exception"))))
    async with opened(tmp_path, on_commit=listen) as log:
        assert (await log.append(events("a")))[0].seq == 0
        assert (await log.append(events("b")))[0].seq == 1
        assert ids(log) == ["a", "b"]
    assert heard == ["listener", "listener"]


async def test_listeners_hear_of_stored_events_once_and_before_their_receipts(tmp_path):
    """`on_commit` gets each stored event once, no duplicate, with its group's received_at, before the receipt."""
    heard = []
    async with opened(tmp_path, on_commit=lambda block, at: heard.append((list(block.message_ids), at))) as log:
        await log.append(events("a", "b", "a"))
        assert heard == [(["a", "b"], NOW)]
        await log.append(events("a"))
        assert len(heard) == 1


def lakebed_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lakebed-")]


async def test_close_stores_pending_events_and_releases_everything(tmp_path):
    """close stores all pending events, then no descriptor and no thread of the log is left."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk, segment_events=2, promotions=()) as log:
        calls = [log.append(events(f"m{i}")) for i in range(50)]
        await log.close()
        assert [call.result()[0].seq for call in calls] == list(range(50))
        assert disk.open_descriptors == {}
        assert lakebed_threads() == []
        with pytest.raises(ObjectClosed):
            await log.append(events("late"))
        await log.close()
    async with opened(tmp_path, promotions=()) as log:
        assert len(ids(log)) == 50


async def test_no_file_stays_open(tmp_path):
    """After close the process has no descriptor left under the log's directory, sealed files and sidecars included."""
    for _ in range(2):
        async with opened(tmp_path, segment_events=2, promotions=()) as log:
            for i in range(5):
                await log.append(events(f"m{i}", None))
            await log.seal()
            await log.append(events("m1"))
            assert ids(log)
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert [link for link in links if link.startswith(str(tmp_path))] == []


async def test_a_clean_close_leaves_an_exact_marker(tmp_path):
    """After close the marker is durable and exact: from then on every bad byte is corruption."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        await log.append(events("a"))
        disk.calls.clear()
        await log.close()
    assert [call for call, _ in disk.calls] == ["sync", "write", "sync", "write", "close"]
    path = log_path(tmp_path, 0)
    assert scan(path).durable == path.stat().st_size
    assert marker(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LogCorrupted):
        async with opened(tmp_path):
            pass
    assert lakebed_threads() == []


async def test_a_close_that_fails_leaves_no_thread_and_no_descriptor(tmp_path):
    """When the last sync fails close raises, and has released everything all the same."""
    disk = FaultyDisk()
    log = make(tmp_path, disk=disk)
    await log.open()
    await log.append(events("a"))
    disk.fail("sync")
    with pytest.raises(LogUnavailable):
        await log.close()
    assert (disk.open_descriptors, lakebed_threads()) == ({}, [])
    await log.close()


async def test_a_log_that_was_never_opened_closes(tmp_path):
    """close before open does nothing, and append before open is ObjectClosed."""
    log = make(tmp_path / "new")
    with pytest.raises(ObjectClosed):
        await log.append(events("a"))
    await log.close()
    assert (lakebed_threads(), (tmp_path / "new").exists()) == ([], False)


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.one_of(
            st.integers(1, 3), st.sampled_from(["fail write", "fail sync", "seal", "fail seal", "reopen", "prune"])
        ),
        max_size=14,
    )
)
def test_a_log_holds_all_acknowledged_events(tmp_path_factory, steps):
    """Appends, failures, sealing, pruning and reopening in any order: the log is the list of acknowledged events."""

    async def run(directory):
        clock, disk, model, count = ManualClock(), FaultyDisk(), [], 0
        options = {"clock": clock, "disk": disk, "segment_events": 3, "promotions": (), "retention_s": 0}
        log = make(directory, dedupe_window_s=1, **options)
        await log.open()
        for step in steps:
            clock.advance(5)
            if isinstance(step, int):
                group = [event(f"m{count + i}") for i in range(step)]
                count += step
                with contextlib.suppress(LogUnavailable):
                    model += [(receipt.seq, receipt.message_id) for receipt in await log.append(group)]
            elif step == "reopen":
                with contextlib.suppress(LogUnavailable):  # a pending failure may come now
                    await log.close()
                disk.heal()
                log = make(directory, dedupe_window_s=1, **options)
                await log.open()
                surfaced = held(log)[len(model) - log.start_seq :]
                model += surfaced  # written but not acknowledged: it may come back, after all others
            elif step == "prune":
                with contextlib.suppress(LogUnavailable):
                    await log.prune(log.next_seq // 2)
            elif step == "seal":
                disk.heal()
                assert await log.seal() == log.next_seq
            else:
                operation = {"fail write": "write", "fail sync": "sync", "fail seal": "sync_file"}[step]
                disk.fail(operation, name=".parquet" if step == "fail seal" else ".log", partial=70)
            assert held(log) == model[log.start_seq :]
            assert log.next_seq == len(model)
        disk.heal()
        await log.close()
        assert disk.open_descriptors == {}

    asyncio.run(run(tmp_path_factory.mktemp("log")))
