"""A load of concurrent tasks: one for each tracker, each kind of query and each job of maintenance."""

import asyncio
import random
from datetime import timedelta

from lakebed import InvalidAsOf
from lakebed.clock import from_us
from lakebed.tiers.archive.file_io import local_path
from tests.crash.session_work import TRACKERS, Work, tell
from tests.crash.subject import START, excused, explained, item_of

STRIDE = 3  # turns of trackers for each job or query, so that no tracker ends before the other tasks begin
ATTEMPTS = 4  # of a call that an injected fault may have failed
LOOPS = ("rollup", "archive", "archive_old", "compact", "expire", "collect_garbage", "seal")
LOOPS += ("ask", "ask_now", "ask_metrics", "ask_rollups", "tag_and_untag", "hold_views")
HELD = (10, 30, 90)  # jobs that others finish while a view is held
_MOST_BACK_US = 2000 * 1_000_000  # less than the hour for which the log remembers ids that it could let go of
_COUNTS = "SELECT count(*), count(DISTINCT seq), coalesce(max(seq) + 1, 0) FROM events"
_ACTIVES = "SELECT CAST(timestamp AS DATE), count(DISTINCT person_id), count(*) FROM events GROUP BY ALL ORDER BY 1"
_HOURS = "SELECT date_trunc('hour', timestamp), count(*) FROM events GROUP BY ALL ORDER BY 1"


class ConcurrentWork(Work):
    """Runs all tasks at once and checks invariants meanwhile; the log of promises checks later what must stay true."""

    loops = LOOPS

    def __init__(self, shop, killer, request, rough=None):
        super().__init__(shop, killer, request)
        self.rough = rough
        self.tracking = 0
        self.finished = 0  # jobs and queries
        self.end = 0  # the seq after the last acknowledged event
        self.top_us = shop.clock.now_us()

    async def everything(self):
        self.tracking = TRACKERS
        self.turns = asyncio.Semaphore(STRIDE * TRACKERS)
        self.moved = asyncio.Condition()  # notified when a job or a tracker ends
        async with asyncio.TaskGroup() as tasks:
            for number in range(TRACKERS):
                tasks.create_task(self.track(number))
            for job in self.loops:
                tasks.create_task(self.again_and_again(job))

    async def again_and_again(self, job):
        rng = random.Random(f"{self.request['seed']}-{job}")
        while self.tracking:
            if rng.random() < self.request.get("cancel", 0.0):
                await self.dropped(self.work(job), rng)
            else:
                await self.weathered(job, lambda: self.work(job))
            for _ in range(STRIDE):
                self.turns.release()
            await self.went_on(1)

    async def went_on(self, jobs):
        self.finished += jobs
        async with self.moved:
            self.moved.notify_all()

    async def others_go_on(self):
        until = self.finished + self.rng.choice(HELD)
        async with self.moved:
            await self.moved.wait_for(lambda: self.finished >= until or not self.tracking)

    async def dropped(self, call, rng):
        """Cancel a call after a moment: it takes effect completely or not at all."""
        task = asyncio.ensure_future(call)
        await asyncio.wait([task], timeout=rng.choice([0.0, 0.001, 0.01, 0.05]))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            self.excuse("dropped", error)

    async def weathered(self, what, call):
        """The result of `call`, or None after an injected fault. Any other failure ends the session."""
        try:
            return await call()
        except Exception as error:  # noqa: BLE001 - judged there
            self.excuse(what, error)
            return None

    def excuse(self, what, error):
        if self.rough is None or not self.rough.hits or not excused(error) or what.startswith("ask"):
            raise error
        tell("refused", what=what, error=type(error).__name__)

    # Tracking

    async def track(self, number):
        rng = random.Random(f"{self.request['seed']}-{number}")
        try:
            for turn in range(self.request["turns"]):
                await self.turns.acquire()
                self.pass_time(rng)
                count = rng.choice([1, 1, 1, 2, 9])
                ids = [f"{self.request['session']}-{number}-{turn}-{at}" for at in range(count)]
                if self.acked and rng.random() < 0.2:
                    ids.append(rng.choice(self.acked[-500:]))
                await self.insist(ids, rng)
                await self.look()
        finally:
            self.tracking -= 1
            await self.went_on(0)

    def pass_time(self, rng):
        clock = self.shop.clock
        clock.advance(rng.choice([0.0, 0.001, 0.5]))
        if rng.random() < 0.01:
            clock.advance(rng.choice([200.0, 5000.0, 5000.0, 90_000.0]))
        self.top_us = max(self.top_us, clock.now_us())
        if rng.random() < self.request.get("steps", 0.0):
            step = rng.choice([-0.5, -30.0, -400.0, 30.0, 4000.0])
            if step > 0 or clock.now_us() + step * 1e6 > self.top_us - _MOST_BACK_US:
                clock.step(step)
        self.top_us = max(self.top_us, clock.now_us())

    async def insist(self, ids, rng):
        """Send the events until a call succeeds: each is stored or a duplicate, and is there once in either case."""
        for _ in range(ATTEMPTS):
            items = [item_of(message_id, self.shop.clock.now_us()) for message_id in ids]
            if rng.random() < self.request.get("cancel", 0.0):
                await self.dropped(self.send(items, batch=len(ids) > 1), rng)
                continue
            receipts = await self.weathered("track", lambda: self.send(items, batch=len(items) > 1))  # noqa: B023
            if receipts is not None:
                self.acknowledged(receipts)
                self.end = max([self.end, *(receipt.seq + 1 for receipt in receipts)])
                return

    async def look(self):
        """The live counters are of one moment: totals count the stored events, and the watermark does not go back."""
        before = self.end
        stats = await self.stats()
        assert sum(stats.totals.values()) == stats.next_seq >= before
        assert stats.watermark <= stats.next_seq
        tell("seen", at=self.shop.clock.now_us(), watermark=stats.watermark)

    # Queries. No fault excuses a failure here: only writes pass through the disk object, reads do not.

    async def ask_now(self):
        """A count neither dips nor doubles, and includes every event that was acknowledged before the query."""
        before = self.end
        total, distinct, end = (await self.shop.query(_COUNTS))[0]
        assert total == distinct == end >= before, f"{total} events, {distinct} distinct, end {end}, had {before}"
        assert end <= (await self.stats()).next_seq

    async def ask_metrics(self):
        """Metrics as of a moment equal SQL as of that moment while other tasks move events."""
        now = self.shop.clock.now_us()
        try:
            await self.compare_metrics(from_us(now))
        except InvalidAsOf:
            if self.shop.clock.now_us() >= now:  # else the clock was set back, and the moment is in the future
                raise

    async def compare_metrics(self, moment):
        first = START - timedelta(days=3)
        actives = await self.shop.dau(start=first, end=moment, as_of=moment)
        raw = await self.shop.query(_ACTIVES, as_of=moment)
        assert [tuple(row) for row in actives if row.events] == [tuple(row) for row in raw]
        start, end = (
            moment.replace(minute=0, second=0, microsecond=0) - timedelta(hours=40),
            moment + timedelta(hours=1),
        )
        series = await self.shop.timeseries(
            start=start, end=end.replace(minute=0, second=0, microsecond=0), as_of=moment
        )
        hours = await self.shop.query(_HOURS, as_of=moment)
        actual = [(row.time, row.value) for row in series if row.value]
        assert actual == [tuple(row) for row in hours if row[0] >= start]

    async def ask_rollups(self):
        """A rollup has all acknowledged events, also while another task brings it up to date."""
        for sql in ("SELECT sum(count) FROM hourly_events", "SELECT sum(events) FROM daily_metrics"):
            before = self.end
            counted = (await self.shop.query(sql))[0][0] or 0
            assert before <= counted <= (await self.stats()).next_seq, f"{sql}: {counted}, had {before}"

    # Jobs of this load alone

    async def hold_views(self):
        """The files of an open view stay, while other tasks compact, collect garbage and prune the log."""
        with self.shop._components.pipeline.view() as log:
            async with self.shop._components.archive.pin() as archive:
                await self.others_go_on()
                paths = [file.path for file in log.files] + [local_path(file.path) for file in archive.files]
                gone = [path for path in paths if not path.exists()]
                assert not gone, f"{len(gone)} files of a view are gone: {gone[0]}"

    async def seal(self):
        """Seal in one of five turns: sealing in each would make thousands of files of a few events."""
        await (super().seal() if self.rng.random() < 0.2 else self.ask_now())

    async def tag_and_untag(self):
        """A tag keeps its snapshot readable until the tag is removed, while other snapshots expire."""
        if not (await self.stats()).watermark:
            await self.archive()
        if not (await self.stats()).watermark:
            return  # the disk has been full since the object was made
        await self.shop.tag("kept")
        counts = [(await self.shop.query(_COUNTS, snapshot="kept"))[0] for _ in range(2)]
        assert tuple(counts[0]) == tuple(counts[1])
        await self.shop.untag("kept")

    async def recover(self):
        """Without faults every call works again in the same process, and `check` reports injected faults alone."""
        self.rough.on = False
        await self.some()
        await self.archive()
        await self.rollup()
        await self.ask_now()
        problems = await self.shop.check()
        assert all(map(explained, problems)), problems
