"""The work of a session, and the messages by which it reports promises to the test."""

import asyncio
import json
import os
import random

from lakebed.clock import from_us
from tests.crash.resource_limits import held
from tests.crash.subject import BY_EVENT, item_of

TRACKERS = 4
TURNS = 3  # of each tracker while one job of maintenance runs


def tell(kind, **facts):
    # A write of less than a page enters the pipe completely, or not at all if the process dies before it.
    os.write(1, json.dumps({"kind": kind, **facts}).encode() + b"\n")


class Work:
    """A seeded mix of tracking, queries and maintenance, in several tasks at once."""

    def __init__(self, shop, killer, request):
        self.shop = shop
        self.killer = killer
        self.request = request
        self.rng = random.Random(request["seed"])
        self.acked = list(request.get("known", []))  # message ids that a retry must find
        self.turns = asyncio.Semaphore(0)

    async def everything(self):
        await asyncio.gather(*(self.track(number) for number in range(TRACKERS)), self.maintain())

    async def track(self, number):
        rng = random.Random(f"{self.request['seed']}-{number}")
        for turn in range(TURNS * self.request["jobs"]):
            await self.turns.acquire()
            self.shop.clock.advance(rng.choice([0.0, 0.001, 0.5]))
            count = rng.choice([1, 1, 1, 2, 9])
            ids = [f"{self.request['session']}-{number}-{turn}-{at}" for at in range(count)]
            if self.acked and rng.random() < 0.2:
                ids.append(rng.choice(self.acked))
            items = [item_of(message_id, self.shop.clock.now_us()) for message_id in ids]
            receipts = await self.send(items, batch=count > 1)
            self.acknowledged(receipts)

    def acknowledged(self, receipts):
        entries = [[receipt.message_id, receipt.seq, receipt.status] for receipt in receipts]
        tell("acked", at=self.shop.clock.now_us(), receipts=entries)
        self.acked += [receipt.message_id for receipt in receipts]

    async def some(self):
        """Send a few events, one call after the other."""
        for count in (1, 1, 12, 1):
            self.shop.clock.advance(0.25)
            ids = [f"{self.request['session']}-some-{len(self.acked)}-{at}" for at in range(count)]
            items = [item_of(message_id, self.shop.clock.now_us()) for message_id in ids]
            self.acknowledged(await self.send(items, batch=count > 1))

    async def arm(self):
        self.killer.armed = True

    async def an_hour(self):
        self.shop.clock.advance(4000.0)  # the log keeps an hour for the live counters

    async def seal(self):
        await self.shop._components.pipeline.seal()

    async def send(self, items, *, batch):
        if batch:
            return await self.shop.batch(items)
        acks = [
            self.shop.track(
                item["event"],
                item["properties"],
                user_id=item["userId"],
                message_id=item["messageId"],
                timestamp=item["timestamp"],
            )
            for item in items
        ]
        return await asyncio.gather(*acks)

    async def maintain(self):
        for _ in range(self.request["jobs"]):
            for _ in range(TRACKERS * TURNS):
                self.turns.release()
            await self.work(self.rng.choice(JOBS))

    async def work(self, job):
        await getattr(self, job)()
        tell("worked", job=job, at=self.shop.clock.now_us(), **held())

    async def rollup(self):
        await self.shop.rollup()

    async def archive(self):
        await self.told(self.shop.archive())

    async def archive_old(self):
        await self.told(self.shop.archive(20.0))

    async def told(self, archiving):
        done = await archiving
        tell("archived", watermark=done.watermark)
        tell("seen", watermark=(await self.stats()).watermark)

    async def stats(self):
        return self.shop.stats()

    async def compact(self):
        await self.shop.compact()

    async def expire(self):
        await self.shop.expire()

    async def collect_garbage(self):
        await self.shop.collect_garbage()

    async def advance(self):
        self.shop.clock.advance(self.rng.choice([1.0, 200.0, 5000.0]))

    async def ask(self):
        """Query as of a moment, and report the answer: it must never change."""
        as_of = self.shop.clock.now_us() - self.rng.choice([0, 0, 700_000, 90_000_000])
        result = await self.shop.query(BY_EVENT, as_of=from_us(as_of))
        tell("asked", at=self.shop.clock.now_us(), as_of=as_of, seq=result.seq[1], rows=[list(row) for row in result])


JOBS = ("rollup", "archive", "archive", "archive_old", "compact", "expire", "collect_garbage", "advance", "ask", "ask")
