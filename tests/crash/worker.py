"""The program that is killed: it opens an object, works on it, and tells the test what it was promised.

Run by its own interpreter it waits for requests, one line of JSON each, and forks a process for each of them: what is
killed is a real process, and a hundred of them import Arrow, DuckDB and pyiceberg once. Its lines on stdout are:
`pid`, `ready`, `acked`, `asked`, `archived`, `done`, and after the process ended `ended` with its wait status.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import traceback
import zlib
from pathlib import Path

from lakebed import Analytics, Disk, ManualClock, Rollup
from lakebed.clock import from_us

TRACKERS = 4
TURNS = 3  # of each tracker while one job of maintenance runs
SETTINGS = {
    "segment_events": 40,
    "retention_s": 0.0,
    "dedupe_window_s": 300.0,
    "headroom_bytes": 0,
    "archive_rows": 90,
    "snapshots_keep": 2,
    "snapshots_age_s": 0.0,
    "garbage_grace_s": 0.0,
    "promote": {"amount": float},
}
BY_EVENT = "SELECT event, count(*), CAST(sum(amount) AS BIGINT) FROM events GROUP BY event ORDER BY event"


class Shop(Analytics):
    amounts = Rollup(
        "amounts", by=["event"], measures={"total": "sum(amount)", "people": "distinct(person_id)"}, grain="day"
    )


def amount_of(message_id):
    """What the event with this id says: a test can tell whether a stored event is the one that was sent."""
    return zlib.crc32(message_id.encode()) % 1000


def item_of(message_id, at_us):
    number = amount_of(message_id)
    return {
        "event": f"e{number % 3}",
        "properties": {"amount": number},
        "userId": f"u{number % 11}",
        "messageId": message_id,
        "timestamp": from_us(at_us - number * 100_000_000).isoformat(),  # up to 28 hours late
    }


def tell(kind, **facts):
    # One write of less than a page goes into the pipe whole, or not at all if the process dies before it.
    os.write(1, json.dumps({"kind": kind, **facts}).encode() + b"\n")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Counts the operations whose label contains `match`, and dies at the n-th: before it, halfway or after it."""

    def __init__(self, kill):
        self.match, self.at, self.when = kill.get("match"), kill.get("at", 0), kill.get("when", "before")
        self.seen = 0
        self.labels = []
        self.armed = not kill.get("later")  # else the job "arm" does it

    def asks(self, label):
        """Whether this is the operation; kills at once if it is not to begin."""
        if not self.armed:
            return False
        self.labels.append(label)
        if self.match is None or self.match not in label:
            return False
        self.seen += 1
        if self.seen != self.at:
            return False
        if self.when == "before":
            die()
        return True

    def over(self, chosen):
        if chosen:
            die()


def label_of(path):
    """A file's part in the whole, without its number."""
    path = Path(path)
    kinds = (".metadata.json", "-m0.avro", ".avro", ".parquet.tmp", ".log.tmp", ".parquet", ".log", ".ids")
    suffix = next((kind for kind in kinds if path.name.endswith(kind)), path.name)
    if suffix.endswith(".avro"):
        suffix = "snapshot-list" if path.name.startswith("snap-") else "manifest"
    return f"{'archive' if 'archive' in path.parts else 'log'}/{suffix}"


class KillDisk(Disk):
    """The real disk, on which the process dies at a chosen operation."""

    def __init__(self, killer):
        self.killer = killer
        self.paths = {}

    def create(self, path):
        chosen = self.killer.asks(f"create {label_of(path)}")
        descriptor = super().create(path)
        self.paths[descriptor] = path
        self.killer.over(chosen)
        return descriptor

    def open(self, path):
        chosen = self.killer.asks(f"open {label_of(path)}")
        descriptor = super().open(path)
        self.paths[descriptor] = path
        self.killer.over(chosen)
        return descriptor

    def write(self, descriptor, buffers, offset):
        what = label_of(self.paths[descriptor])
        label = f"mark {what}" if what == "log/.log" and offset == 64 else f"write {what}"
        chosen = self.killer.asks(label)
        if chosen and self.killer.when == "half":
            data = b"".join(map(bytes, buffers))
            super().write(descriptor, [data[: len(data) // 2]], offset)
            die()
        super().write(descriptor, buffers, offset)
        self.killer.over(chosen)

    def sync(self, descriptor):
        chosen = self.killer.asks(f"sync {label_of(self.paths[descriptor])}")
        super().sync(descriptor)
        self.killer.over(chosen)

    def truncate(self, descriptor, size):
        chosen = self.killer.asks(f"truncate {label_of(self.paths[descriptor])}")
        super().truncate(descriptor, size)
        self.killer.over(chosen)

    def sync_file(self, path):
        chosen = self.killer.asks(f"sync_file {label_of(path)}")
        super().sync_file(path)
        self.killer.over(chosen)

    def sync_directory(self, path):
        chosen = self.killer.asks(f"sync_directory {'archive' if 'archive' in Path(path).parts else 'log'}")
        super().sync_directory(path)
        self.killer.over(chosen)

    def replace(self, source, target):
        chosen = self.killer.asks(f"replace {label_of(target)}")
        super().replace(source, target)
        self.paths = {one: target if path == source else path for one, path in self.paths.items()}
        self.killer.over(chosen)

    def remove(self, path):
        chosen = self.killer.asks(f"remove {label_of(path)}")
        super().remove(path)
        self.killer.over(chosen)


def trace_sqlite(killer):
    """Every statement of every SQLite connection from now on is an operation: those of rollups and of the catalog."""
    connect = sqlite3.connect

    def traced(path, *args, **kwargs):
        connection = connect(path, *args, **kwargs)
        place = "catalog" if "catalog" in str(path) else "storage"

        def seen(statement):
            killer.over(killer.asks(f"sql {place} {' '.join(statement.split()[:2])}"))

        connection.set_trace_callback(seen)
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = traced


class Work:
    """A seeded mix of everything, from several tasks at once."""

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
            items = [item_of(one, self.shop.clock.now_us()) for one in ids]
            receipts = await self.send(items, batch=count > 1)
            self.acknowledged(receipts)

    def acknowledged(self, receipts):
        found = [[one.message_id, one.seq, one.status] for one in receipts]
        tell("acked", at=self.shop.clock.now_us(), receipts=found)
        self.acked += [one.message_id for one in receipts]

    async def some(self):
        """A few events, one after the other."""
        for count in (1, 1, 12, 1):
            self.shop.clock.advance(0.25)
            ids = [f"{self.request['session']}-some-{len(self.acked)}-{at}" for at in range(count)]
            items = [item_of(one, self.shop.clock.now_us()) for one in ids]
            self.acknowledged(await self.send(items, batch=count > 1))

    async def arm(self):
        self.killer.armed = True

    async def an_hour(self):
        self.shop.clock.advance(4000.0)  # the log keeps an hour for the live counters

    async def seal(self):
        await self.shop._tiers.pipeline.seal()

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
        return [await ack for ack in acks]

    async def maintain(self):
        for _ in range(self.request["jobs"]):
            for _ in range(TRACKERS * TURNS):
                self.turns.release()
            await self.work(self.rng.choice(JOBS))

    async def work(self, job):
        await getattr(self, job)()
        tell("worked", job=job, at=self.shop.clock.now_us())

    async def rollup(self):
        await self.shop.rollup()

    async def archive(self):
        await self.told(self.shop.archive())

    async def archive_old(self):
        await self.told(self.shop.archive(20.0))

    async def told(self, archiving):
        done = await archiving
        tell("archived", watermark=done.watermark)

    async def compact(self):
        await self.shop.compact()

    async def expire(self):
        await self.shop.expire()

    async def collect_garbage(self):
        await self.shop.collect_garbage()

    async def advance(self):
        self.shop.clock.advance(self.rng.choice([1.0, 200.0, 5000.0]))

    async def ask(self):
        """Ask about a moment, and tell the answer: it must stay what it is."""
        as_of = self.shop.clock.now_us() - self.rng.choice([0, 0, 700_000, 90_000_000])
        result = await self.shop.query(BY_EVENT, as_of=from_us(as_of))
        tell("asked", at=self.shop.clock.now_us(), as_of=as_of, seq=result.seq[1], rows=[list(row) for row in result])


JOBS = ("rollup", "archive", "archive", "archive_old", "compact", "expire", "collect_garbage", "advance", "ask", "ask")


async def session(request):
    """One life of the object: until the work is done, or the process is killed."""
    kill = request.get("kill") or {}
    killer = Killer(kill)
    if kill:
        trace_sqlite(killer)
    shop = Shop(
        "shop",
        root=request["root"],
        clock=ManualClock(from_us(request["start_us"])),
        disk=KillDisk(killer) if kill else None,
        **SETTINGS,
    )
    async with shop:
        tell("ready", next_seq=shop.stats().next_seq, watermark=shop.stats().watermark)
        work = Work(shop, killer, request)
        for job in request.get("first", []):
            await work.work(job)
        await work.everything()
    tell("done", now_us=shop.clock.now_us(), labels=killer.labels)


def child(request):
    code = 1
    try:
        asyncio.run(session(request))
        code = 0
    except BaseException:  # noqa: BLE001 - the test reads it
        tell("failed", trace=traceback.format_exc()[-3000:])
    finally:
        os._exit(code)


def serve():
    # Imported before the fork, so that no process pays for them; none of them leaves a thread.
    import datasketches  # noqa: F401
    import duckdb  # noqa: F401
    import pyiceberg.catalog.sql  # noqa: F401
    import sqlglot  # noqa: F401

    import lakebed.tiers.iceberg
    import lakebed.tiers.warehouse  # noqa: F401

    tell("serving")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        tell("pid", pid=pid)
        _, status = os.waitpid(pid, 0)
        tell("ended", status=status)


if __name__ == "__main__":
    serve()
