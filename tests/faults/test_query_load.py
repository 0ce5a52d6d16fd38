"""Counts under load: queries run while events are tracked, archived, compacted and pruned from the log."""

import asyncio
from functools import partial

from lakebed import ArchiveUnavailable
from lakebed.clock import from_us
from tests.faults.orders import WHOLE, fill, holds, whole

ROUNDS = 9
BATCH = 6


class Load:
    """The writer, jobs and queries of one shop, until the writer has sent all of its batches."""

    def __init__(self, shop, clock):
        self.shop = shop
        self.clock = clock
        self.acked = 0
        self.over = False
        self.answers = {}  # asker -> rows counted
        self.tiers = set()
        self.turns = {}  # jobs of a task -> how often its jobs were done
        self.progress = asyncio.Event()

    async def write(self):
        for number in range(ROUNDS):
            await fill(self.shop, number * BATCH, (number + 1) * BATCH)
            self.acked = (number + 1) * BATCH
            self.clock.advance(900.0)  # four times this is the hour for which the log is kept
            while min(self.turns.values()) < number // 3:  # all jobs run between batches
                self.progress.clear()
                await self.progress.wait()
        self.over = True

    async def repeat(self, *jobs):
        self.turns[jobs] = 0
        while not self.over:
            for job in jobs:
                await job()
            self.turns[jobs] += 1
            self.progress.set()

    async def seal(self):
        await self.shop._components.pipeline.seal()

    async def ask(self, asker=1):
        """A count has each acknowledged event once, and no event that was not sent.

        Of successive queries of one asker, each counts at least as many events as the one before.
        """
        before = self.acked
        result = await self.shop.query(WHOLE)
        count = result[0][0]
        assert tuple(result[0]) == whole(count)
        assert before <= count <= self.acked + BATCH
        counts = self.answers.setdefault(asker, [0])
        assert count >= counts[-1], "the count went back"
        counts.append(count)
        self.tiers.add(result.tiers)

    async def ask_slowly(self):
        """The files and rows of a running query stay unchanged while every job runs."""
        tiers = self.shop._components
        async with tiers.history.cut() as cut:
            least = min(self.turns.values()) + 2
            while min(self.turns[jobs] for jobs in self.turns if self.ask_slowly not in jobs) < least and not self.over:
                self.progress.clear()
                await self.progress.wait()
            cursor = tiers.engine.cursor()
            cut.relation().register(cursor)
            assert cursor.sql(WHOLE).fetchall() == [whole(cut.end_seq)]
            cursor.close()

    async def ask_the_past(self):
        """The answer as of a moment does not change."""
        moment = from_us(self.clock.now_us())
        count = (await self.shop.query(WHOLE, as_of=moment))[0][0]
        for _ in range(3):
            assert await holds(self.shop, count, as_of=moment)


async def test_query_43_counts_are_exact_under_load(make, clock):
    """While events are tracked, sealed, archived, compacted, collected and pruned, no count dips or doubles."""
    async with make(segment_events=BATCH * 2) as shop:
        load = Load(shop, clock)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.write())
            tasks.create_task(load.repeat(load.seal, shop.archive, shop.rollup))
            tasks.create_task(load.repeat(shop.compact, shop.expire, shop.collect_garbage))
            tasks.create_task(load.repeat(partial(load.ask, 1)))
            tasks.create_task(load.repeat(partial(load.ask, 2)))
            tasks.create_task(load.repeat(load.ask_the_past))
            tasks.create_task(load.repeat(load.ask_slowly))
        assert all(len(set(counts)) > 3 for counts in load.answers.values())
        assert ("L1", "L3") in load.tiers
        assert shop._components.pipeline.start_seq > 0, "the log let go of something meanwhile"
        assert await holds(shop, ROUNDS * BATCH)
        assert await shop.check() == []


async def test_query_43_counts_are_exact_while_the_catalog_fails_now_and_then(moody, clock):
    """The same with a catalog that fails from time to time: an answer is exact, or an error."""
    catalog, make = moody
    refused = 0

    async with make(segment_events=BATCH) as shop:
        load = Load(shop, clock)

        async def patient(job):
            nonlocal refused
            try:
                await job()
            except ArchiveUnavailable:
                refused += 1
                await asyncio.sleep(0)

        async def upset():
            for mood in ("down", "", "lost", ""):
                catalog.mood = mood
                for _ in range(20):
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.write())
            tasks.create_task(load.repeat(lambda: patient(shop.archive), shop.rollup))
            tasks.create_task(load.repeat(lambda: patient(shop.compact), lambda: patient(shop.expire)))
            tasks.create_task(load.repeat(lambda: patient(load.ask)))
            tasks.create_task(load.repeat(upset))
        catalog.calm()
        assert refused > 0
        assert len(set(load.answers[1])) > 3
        assert await holds(shop, ROUNDS * BATCH)
        await shop.archive()
        assert await holds(shop, ROUNDS * BATCH)
        assert await shop.check() == []
