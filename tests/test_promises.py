"""One test for each promise of the design (§3), in its words. For depth see tests/tiers, tests/model, tests/crash."""

import asyncio
import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from lakebed import (
    Analytics,
    Backpressure,
    Disk,
    DiskFull,
    InvalidAsOf,
    LogUnavailable,
    ManualClock,
    ObjectLocked,
    QueryTooLarge,
    Rollup,
    SnapshotExpired,
    StorageUnavailable,
)
from lakebed.clock import from_us

pytestmark = pytest.mark.integration  # a whole object for each promise

START = datetime(2026, 1, 15, 12, tzinfo=UTC)
COUNT = "SELECT count(*) FROM events"
BY_EVENT = "SELECT event, count(*) AS n, sum(revenue) AS total FROM events GROUP BY event ORDER BY event"


class Shop(Analytics):
    revenue = Rollup(
        "revenue", by=["plan"], measures={"total": "sum(revenue)", "people": "distinct(person_id)"}, grain="day"
    )


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    """Shops in one directory, with limits that a test reaches."""

    def make(**options):
        defaults = {"headroom_bytes": 0, "segment_events": 10, "promote": {"revenue": float}}
        small = {"snapshots_keep": 1, "snapshots_age_s": 0.0, "garbage_grace_s": 0.0}
        return Shop("shop", root=tmp_path, clock=clock, **defaults | small | options)

    return make


def order(number, **more):
    plan = ("free", "pro")[number % 2]
    item = {"event": "order", "userId": f"u{number % 5}", "properties": {"revenue": number / 2, "plan": plan}}
    return item | {"messageId": f"m{number}"} | more


async def rolled_and_raw(shop):
    """The rollup's rows, and what one GROUP BY gives."""
    rolled = await shop.query("SELECT date, plan, total, people FROM revenue ORDER BY ALL")
    raw = await shop.query(
        "SELECT CAST(timestamp AS DATE) AS date, properties->>'$.plan' AS plan, sum(revenue) AS total, "
        "count(DISTINCT person_id) AS people FROM events GROUP BY ALL ORDER BY ALL"
    )
    return rolled.rows, raw.rows


class SyncedDisk(Disk):
    """Knows what of each file a power loss would leave, and fails where a test says so."""

    def __init__(self):
        self.paths, self.written, self.synced = {}, {}, {}
        self.failing = 0
        self.failed = []  # descriptors whose sync has failed

    def create(self, path):
        descriptor = super().create(path)
        self.paths[descriptor], self.written[descriptor] = path, 0
        return descriptor

    def write(self, descriptor, buffers, offset):
        super().write(descriptor, buffers, offset)
        self.written[descriptor] = max(self.written.get(descriptor, 0), offset + sum(map(len, buffers)))

    def sync(self, descriptor):
        assert descriptor not in self.failed, "a descriptor whose sync failed was synced again"
        if self.failing:
            self.failing -= 1
            self.failed.append(descriptor)
            raise OSError(errno.EIO, "injected")
        super().sync(descriptor)
        self.synced[descriptor] = self.written.get(descriptor, 0)

    def close(self, descriptor):
        super().close(descriptor)
        if descriptor in self.failed:
            self.failed.remove(descriptor)  # its number may be given again


async def test_promise_01_durable_before_ack(make):
    """An awaited `track` returns after its bytes are fsynced. A failed fsync poisons that segment: no ack, no retry.

    The next attempt goes to a new segment, and what was acknowledged before is untouched.
    """
    disk = SyncedDisk()
    async with make(disk=disk) as shop:
        first = await shop.track("order", {"revenue": 1.5}, message_id="a")
        assert disk.synced == disk.written, "acknowledged, with bytes that a power loss takes"
        segments = len(list(shop.directory.glob("log/*.log")))
        disk.failing = 1
        with pytest.raises(LogUnavailable):
            await shop.track("order", {"revenue": 2.5}, message_id="b")
        assert shop.stats().next_seq == 1
        again = await shop.track("order", {"revenue": 2.5}, message_id="b")
        assert (first.seq, again.seq, again.status) == (0, 1, "stored")
        assert len(list(shop.directory.glob("log/*.log"))) + len(list(shop.directory.glob("log/*.parquet"))) > segments
    async with make() as shop:
        assert [row.message_id for row in await shop.query("SELECT message_id FROM events ORDER BY seq")] == ["a", "b"]
        assert await shop.check() == []


async def test_promise_02_exactly_once(make, clock):
    """Every acknowledged event is in every answer once: retries, reopening, rollup and archive re-runs, late events."""
    async with make() as shop:
        receipts = await shop.batch([order(number) for number in range(25)])
        retried = await shop.batch([order(number) for number in range(30)])
        assert [receipt.status for receipt in retried] == ["duplicate"] * 25 + ["stored"] * 5
        assert [receipt.seq for receipt in retried[:25]] == [receipt.seq for receipt in receipts]
        for _ in range(2):
            await shop.rollup()
            await shop.archive()
        await shop.track("order", {"revenue": 7.0, "plan": "pro"}, timestamp=START - timedelta(days=30))
    clock.advance(3600)
    async with make() as shop:
        assert (await shop.track("order", message_id="m3")).seq == receipts[3].seq
        assert (await shop.archive()).rows == 1
        assert (await shop.archive()).rows == 0
        assert (await shop.query(COUNT)).scalar() == 31
        rolled, raw = await rolled_and_raw(shop)
        assert rolled == raw
        assert sum(row.events for row in await shop.dau(40)) == 31


async def test_promise_03_read_your_writes(make, clock):
    """A read first catches its consumer up: no answer is stale, wherever it comes from."""
    async with make() as shop:
        for number in range(1, 14):
            await shop.track("order", {"revenue": 1.0, "plan": "pro"}, user_id=f"u{number}")
            assert (await shop.dau(1))[0].dau == number
            assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == number
            assert (await shop.query("SELECT sum(count) FROM hourly_events")).scalar() == number
            series = await shop.timeseries(start=START, end=START + timedelta(hours=1))
            assert sum(row.value for row in series) == number
            assert shop.stats().totals == {"order": number}
            clock.advance(1)


async def test_promise_04_state_and_checkpoint_move_together(make):
    """SQLite: state and checkpoint in one transaction, also when it is full. Iceberg: the watermark in the commit."""
    async with make() as shop:
        await shop.batch([order(number) for number in range(20)])
        await shop.rollup()
        pages = await shop._components.storage.fetch("PRAGMA page_count")
        await shop._components.storage.fetch(f"PRAGMA max_page_count = {pages[0][0]}")
        await shop.batch([order(number, userId=f"person {number} " + "x" * 200) for number in range(20, 400)])
        with pytest.raises(StorageUnavailable):
            await shop.rollup()
        assert await shop._components.rollups.checkpoint() == 20
        await shop._components.storage.fetch("PRAGMA max_page_count = 1000000")
        assert (await shop.rollup()).events == 380
        rolled, raw = await rolled_and_raw(shop)
        assert rolled == raw
        await shop.archive()
        newest = (await shop.snapshots())[-1]
        assert newest.watermark == newest.rows == 400


async def test_promise_05_the_log_is_deleted_last(make, clock):
    """A segment goes only when every consumer passed it, the archive commit was verified and the retention is over."""
    async with make(retention_s=3600.0, dedupe_window_s=60.0) as shop:

        async def kept():
            await shop._components.maintenance.prune()
            return len(list(shop.directory.glob("log/*.parquet")))

        await shop.batch([order(number) for number in range(10)])
        await shop.batch([order(number) for number in range(10, 20)])
        await shop._components.pipeline.seal()
        clock.advance(7200)
        assert await kept() == 2, "retention is over, but nothing has read them"
        await shop.rollup()
        assert await kept() == 2, "the archive does not have them"
        await shop.archive(older_than=3600.0)
        assert await kept() == 0
        await shop.batch([order(number) for number in range(20, 30)])
        await shop.archive()
        await shop.rollup()
        assert await kept() == 1, "its retention is not over"
        clock.advance(3700)
        assert await kept() == 0
        assert (await shop.query(COUNT)).scalar() == 30
        assert await shop.check() == []


async def test_promise_06_no_gap_no_overlap(make, clock):
    """Raw events = archive(seq < W) and log(seq >= W), split by seq: late events and double copies change nothing."""
    async with make() as shop:
        for first in (0, 10, 20):
            await shop.batch([order(n, timestamp=START - timedelta(days=n % 7)) for n in range(first, first + 10)])
            await shop._components.pipeline.seal()
            clock.advance(600)
        for older_than, watermark in ((1500.0, 10), (900.0, 20), (None, 30)):
            await shop.archive(older_than)
            result = await shop.query("SELECT count(*) AS n, count(DISTINCT seq) AS seqs, sum(revenue) FROM events")
            assert tuple(result[0]) == (30, 30, sum(range(30)) / 2)
            assert result.watermark == watermark
            assert result.tiers == (("L1", "L3") if watermark < 30 else ("L3",))
            assert list(shop.directory.glob("log/*.parquet")), "the log still has them too"


@pytest.mark.integration
async def test_promise_07_as_of_is_exact_for_ever(make, clock):
    """`as_of=T` is a cut in the log: rollups, archive, compaction, expiry, pruning and clocks cannot change the answer.

    Iceberg's own time travel is beside it, with a clear SnapshotExpired.
    """
    async with make(retention_s=0.0, dedupe_window_s=60.0) as shop:
        answers = {}
        for number in range(40):
            await shop.track("order", {"revenue": number / 4}, timestamp=START - timedelta(hours=number * 7 % 50))
            moment = from_us(clock.now_us())
            answers[moment] = (await shop.query(BY_EVENT, as_of=moment)).rows
            assert answers[moment][0].n == number + 1
            clock.advance(30)
            if number % 10 == 9:
                await shop.archive()
        oldest = (await shop.snapshots())[0].id
        with pytest.raises(InvalidAsOf):
            await shop.query(BY_EVENT, as_of=from_us(clock.now_us() + 1))
        clock.advance(7200)
        await shop.tidy()
        await shop.settle()
        clock.step(-3600)
        await shop.track("order", {"revenue": 1000.0})
        assert (await shop.compact()).commits + len((await shop.expire()).snapshots) > 0
        assert (await shop.collect_garbage()).paths
        assert not list(shop.directory.glob("log/*.parquet"))
        for moment, rows in answers.items():
            assert (await shop.query(BY_EVENT, as_of=moment)).rows == rows
        with pytest.raises(SnapshotExpired):
            await shop.query(BY_EVENT, snapshot=oldest)
        newest = (await shop.snapshots())[-1]
        assert (await shop.query(COUNT, snapshot=newest.id)).scalar() == newest.watermark


async def test_promise_08_one_owner(make, tmp_path):
    """A directory is open in one process; a second gets ObjectLocked with the owner's pid."""
    program = (
        "import asyncio, sys; from lakebed import Analytics, ObjectLocked\n"
        f"async def main():\n    await Analytics('shop', root={str(tmp_path)!r}).open()\n"
        "try: asyncio.run(main())\nexcept ObjectLocked as error: print(error.pid)"
    )
    async with make():
        with pytest.raises(ObjectLocked) as locked:
            await make().open()
        assert locked.value.pid == os.getpid()
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == str(os.getpid())
    async with make() as shop:
        assert shop.is_open


class FillingDisk(Disk):
    """A disk that has no room left once it is told so."""

    full = False

    def free_bytes(self, path):
        return -1 if self.full else super().free_bytes(path)


async def test_promise_09_bounded(make):
    """Memory, disk and time have limits; reaching one is an error that names it, and no event is lost silently."""
    disk = FillingDisk()
    async with make(disk=disk, pending_events=100, query_max_rows=50, counters_max_keys=20) as shop:
        waiting = [shop.batch([order(n) for n in range(first, first + 60)]) for first in (0, 60, 120)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Backpressure)]
        stored = sum(len(outcome) for outcome in outcomes if isinstance(outcome, list))
        assert refused
        assert all(error.limit == 100 for error in refused)
        assert stored == shop.stats().next_seq == (await shop.query(COUNT)).scalar() == 180 - 60 * len(refused)
        with pytest.raises(QueryTooLarge, match="query_max_rows") as too_large:
            await shop.query("SELECT * FROM events")
        assert too_large.value.limit == 50
        for number in range(100):
            shop.counters.incr(f"key:{number}", ttl=60)
        assert len(shop.counters) <= 20
        assert await shop.check() == []
        disk.full = True
        with pytest.raises(DiskFull) as disk_full:
            await shop.track("order")
        assert disk_full.value.limit == 0
        assert (await shop.query(COUNT)).scalar() == stored


async def test_promise_10_nothing_vanishes(make):
    """An event that cannot be taken is answered with a reason: received = stored + duplicate + rejected, always."""
    async with make() as shop:
        items = [order(0), {"event": ""}, order(0), 17, {"type": "identify"}, order(1)]
        receipts = await shop.batch(items)
        assert [receipt.status for receipt in receipts] == [
            "stored",
            "rejected",
            "duplicate",
            "rejected",
            "rejected",
            "stored",
        ]
        assert [receipt.reason for receipt in receipts if receipt.status == "rejected"] == [
            "event name is empty",
            "an event must be a mapping, not int",
            "identify needs a user_id or an anonymous_id",
        ]
        with pytest.raises(ValueError, match="event name"):
            await shop.track("")
        stats = shop.stats()
        assert (stats.received, stats.stored, stats.duplicate, stats.rejected) == (7, 2, 1, 4)
        assert await shop.check() == []


async def test_promise_11_every_answer_shows_its_work(make, clock):
    """`tiers` used, `seq` covered, rows, milliseconds; an `as_of` answer says which instant it is of."""
    async with make() as shop:
        await shop.batch([order(number) for number in range(20)])
        raw = await shop.query("SELECT event FROM events")
        assert (raw.tiers, raw.seq, len(raw), raw.watermark) == (("L1",), (0, 20), 20, 0)
        await shop.archive()
        clock.advance(5)
        before = from_us(clock.now_us())
        clock.advance(5)
        await shop.track("order", user_id="late")
        both = await shop.query(COUNT)
        assert (both.tiers, both.seq, both.watermark) == (("L1", "L3"), (0, 21), 20)
        past = await shop.query(COUNT, as_of=before)
        assert (past.tiers, past.seq, past.as_of, past.scalar()) == (("L3",), (0, 20), before, 20)
        rolled = await shop.dau(1)
        assert (rolled.tiers, rolled.seq) == (("L2",), (0, 21))
        assert all(answer.elapsed_ms >= 0 for answer in (raw, both, past, rolled))
        assert both.files
        assert "L1 + L3" in repr(both)
