"""Objects on a machine that hangs, refuses writes, or has no descriptors left: behaviour meanwhile and afterwards."""

import asyncio
import contextlib
import errno
import os
import resource
import sqlite3
from pathlib import Path

import pytest

from lakebed import (
    ArchiveUnavailable,
    Backpressure,
    LogUnavailable,
    ManualClock,
    ObjectUnavailable,
    QueryError,
    StorageUnavailable,
)
from lakebed.errors import LakebedError, LogCorrupted
from lakebed.tiers.pipeline.sealing import SealedFile, read_sealed
from tests.analytics_fixtures import START, fill, maker
from tests.disks import FaultyDisk, GatedDisk, reach

DAY = {"start": START, "end": START}
COUNT = "SELECT count(*) FROM events"


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    return maker(tmp_path, clock)


async def test_l1_13_a_hanging_sync_bounds_the_waiting_events(make):
    """While an fsync hangs, waiting events are bounded, more are Backpressure, reads work; then all are stored."""
    disk = GatedDisk()
    async with make(disk=disk, pending_events=50, segment_events=1000) as shop:
        await fill(shop, 10)
        disk.gate.clear()
        disk.reached.clear()
        calls = [shop.track("hung", message_id="h0")]
        await reach(disk)
        calls += [shop.track("hung", message_id=f"h{number}") for number in range(1, 51)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        refused = []
        for number in range(200):
            with pytest.raises(Backpressure) as caught:
                await shop.track("refused", message_id=f"r{number}")
            refused.append(caught.value.limit)
        assert set(refused) == {50}
        assert shop._components.pipeline.pending_events == 51, "what is refused takes no memory"
        assert (await shop.query(COUNT)).scalar() == 10
        assert (await shop.dau(**DAY))[0].events == 10
        assert shop.stats().next_seq == 10
        assert not any(task.done() for task in waiting)
        disk.gate.set()
        receipts = await asyncio.gather(*waiting)
        assert [receipt.seq for receipt in receipts] == list(range(10, 61))
        assert (await shop.query(COUNT)).scalar() == (await shop.dau(**DAY))[0].events == 61
        assert await shop.check() == []


async def test_l1_13_cancelled_waits_for_a_hanging_sync_lose_nothing(make):
    """Callers that give up waiting for a hung fsync lose nothing: their events are stored once when it returns."""
    disk = GatedDisk()
    async with make(disk=disk) as shop:
        await fill(shop, 1)
        disk.gate.clear()
        disk.reached.clear()
        for number in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(shop.track("hung", message_id=f"h{number}"), 0)
        disk.gate.set()
        await shop.flush()
        assert [(await shop.track("hung", message_id=f"h{number}")).status for number in range(5)] == ["duplicate"] * 5
        assert (await shop.query(COUNT)).scalar() == 6
        assert await shop.check() == []


_WRITES = ["create", "open", "write", "write header", "sync", "truncate", "sync_file", "replace", "remove"]


async def test_l1_14_a_file_system_that_becomes_read_only(make):
    """Like ext4 after an error: each write is a typed error, nothing is acknowledged, reads work; later writes work."""
    disk = FaultyDisk()
    async with make(disk=disk) as shop:
        await fill(shop, 25)
        before = (await shop.dau(**DAY)).rows
        for operation in _WRITES:
            disk.fail(operation, errno.EROFS, times=10**6)
        for number in range(3):
            with pytest.raises(LogUnavailable, match="Read-only file system"):
                await shop.track("order", message_id=f"r{number}")
        with pytest.raises(LakebedError):
            await shop.archive()
        assert (await shop.dau(**DAY)).rows == before
        assert (await shop.query(COUNT)).scalar() == 25
        assert (await shop.track("order", message_id="m3")).status == "duplicate"
        assert any("Read-only" in problem.message for problem in await shop.check())
        disk.heal()
        assert [(await shop.track("order", message_id=f"r{number}")).seq for number in range(3)] == [25, 26, 27]
        assert (await shop.archive()).watermark == 28
        assert await shop.check() == []
    async with make() as shop:
        assert (await shop.query(COUNT)).scalar() == (await shop.dau(**DAY))[0].events == 28


@contextlib.contextmanager
def no_descriptors(spare=0):
    """The process may open `spare` more files; then the kernel returns EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(spare)]
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 1, limits[0]), limits[1]))
    try:
        filling = list(held)
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in held:
            os.close(descriptor)
            filling.remove(descriptor)
        yield
    finally:
        for descriptor in filling:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


UNAVAILABLE = (ObjectUnavailable, LogUnavailable, StorageUnavailable, ArchiveUnavailable, QueryError)


async def tried(awaitable, errors):
    """The result, or None if the machine refused the call; the error is then added to `errors`."""
    try:
        return await awaitable
    except UNAVAILABLE as error:
        errors.append(str(error))
        return None


@pytest.mark.parametrize("spare", [0, 2, *(pytest.param(spare, marks=pytest.mark.slow) for spare in (1, 4))])
async def test_l1_15_without_free_descriptors_errors_are_typed(make, spare):
    """EMFILE anywhere is a typed error, never a wrong answer or LogCorrupted; afterwards nothing is missing."""
    async with make(segment_events=4) as shop:
        await fill(shop, 30)
        await shop.archive()
        await fill(shop, 30, first=30)
        await shop._components.pipeline.seal()
        errors = []
        with no_descriptors(spare):
            tracks = [await tried(shop.track("order", message_id=f"x{number}"), errors) for number in range(12)]
            counted = await tried(shop.query(COUNT), errors)
            days = await tried(shop.dau(**DAY), errors)
        stored = 60 + sum(receipt is not None for receipt in tracks)
        assert counted is None or counted.scalar() == stored
        assert days is None or days[0].events == stored
        assert errors or spare
        assert all("Too many open files" in error or "unable to open" in error for error in errors)
        for number in range(12):
            await shop.track("order", message_id=f"x{number}", user_id="x")
        assert (await shop.query(COUNT)).scalar() == (await shop.dau(**DAY))[0].events == 72
        await shop.archive()
        assert await shop.check() == []


async def test_l1_15_a_sealed_file_that_cannot_be_opened_is_not_corrupted(make):
    """EMFILE says nothing about the bytes of a file: no error asks to restore it from a backup, also at opening."""
    async with make(segment_events=4) as shop:
        await fill(shop, 4)
        await shop._components.pipeline.seal()
        (path,) = (shop.directory / "log").glob("*.parquet")
    with no_descriptors():
        for read in (SealedFile.read, read_sealed):
            with pytest.raises(LogUnavailable, match="Too many open files"):
                read(path)
    path.unlink()
    with pytest.raises(LogCorrupted):
        read_sealed(path)


@pytest.mark.parametrize("spare", [0, 3, *(pytest.param(spare, marks=pytest.mark.slow) for spare in (1, 2, 4, 5))])
async def test_l1_15_an_object_does_not_open_without_free_descriptors(make, spare):
    """An object without descriptors is unavailable, not corrupted, and opens later."""
    async with make(segment_events=4) as shop:
        await fill(shop, 30)
        await shop._components.pipeline.seal()
    errors = []
    with no_descriptors(spare):
        shop = await tried(make().open(), errors)
    if shop is not None:
        await shop.close()
    assert (shop is None) == bool(errors)
    assert errors or spare
    async with make() as shop:
        assert (await shop.dau(**DAY))[0].events == 30
        assert await shop.check() == []


async def test_l2_18_a_locked_database_is_a_typed_error_after_a_bounded_wait(make):
    """While another process locks the database, rollups raise StorageUnavailable after a bounded wait.

    Tracking and raw queries go on, the loop is not blocked, and without the lock rollups are exact.
    """
    async with make() as shop:
        await fill(shop, 20)
        await shop.rollup()
        before = (await shop.dau(**DAY)).rows
        await shop._components.storage.fetch("PRAGMA busy_timeout = 50")  # it is 5 s
        other = sqlite3.connect(shop.directory / "storage.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert (await shop.dau(**DAY)).rows == before, "a read needs no lock"
        await fill(shop, 5, first=20)
        for _ in range(3):
            asking = asyncio.ensure_future(shop.dau(**DAY))
            assert (await shop.track("order")).status == "stored"
            with pytest.raises(StorageUnavailable) as caught:
                await asking
            assert caught.value.code == "SQLITE_BUSY"
            assert (await shop.query(COUNT)).scalar() == shop.stats().next_seq
        assert {problem.where for problem in await shop.check()} == {"rollups", "identity", "dead letters"}
        other.execute("ROLLBACK")
        other.close()
        assert (await shop.dau(**DAY))[0].events == 28
        assert await shop.check() == []
