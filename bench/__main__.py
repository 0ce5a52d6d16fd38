"""One command, one table: python -m bench [--runs N] [--events N]."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from lakebed import Analytics, ManualClock
from lakebed.block import Block
from lakebed.decoding import decode_batch
from lakebed.events import Event
from lakebed.tiers.counters import Counters

BATCH = 1_000


def bodies(events: int) -> list[bytes]:
    """JSON arrays of `BATCH` events, always the same."""
    rng = random.Random(7)
    names, people = [f"Event {i}" for i in range(20)], [f"user-{i}" for i in range(5_000)]

    def event() -> dict[str, object]:
        return {
            "type": "track",
            "event": names[min(int(rng.expovariate(0.3)), 19)],
            "userId": people[min(int(rng.expovariate(0.001)), 4_999)],
            "anonymousId": str(uuid.UUID(int=rng.getrandbits(128))),
            "messageId": str(uuid.UUID(int=rng.getrandbits(128))),
            "timestamp": "2026-01-01T00:00:00.123Z",
            "properties": {"revenue": rng.randint(100, 9_999) / 100, "plan": "pro", "quantity": 3, "sku": "A-123"},
            "context": {"ip": "192.0.2.1", "library": {"name": "bench", "version": "1"}},
        }

    return [msgspec.json.encode([event() for _ in range(BATCH)]) for _ in range(events // BATCH)]


async def ingest(directory: Path, batches: list[bytes]) -> float:
    """Events a second through `batch`, each awaited: durable before the next."""
    async with Analytics("bench", root=directory) as analytics:
        start = time.perf_counter()
        for body in batches:
            await analytics.batch(body)
        return len(batches) * BATCH / (time.perf_counter() - start)


def ingest_floor(directory: Path, batches: list[bytes]) -> float:
    """The unavoidable part of the same: decode, build Arrow, write, fdatasync."""
    decoder = msgspec.json.Decoder(list[Event])
    directory.mkdir()
    descriptor = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT, 0o644)
    start = time.perf_counter()
    for number, body in enumerate(batches):
        found = decoder.decode(body)
        for event in found:
            event.timestamp = 0
        os.write(
            descriptor,
            Block.of(found).to_record_batch([one.message_id or "" for one in found], number * BATCH, 0).serialize(),
        )
        os.fdatasync(descriptor)
    os.close(descriptor)
    return len(batches) * BATCH / (time.perf_counter() - start)


async def track(directory: Path, tasks: int, each: int) -> float:
    """Awaited `track` calls a second with `tasks` in flight."""

    async def one(analytics: Analytics) -> None:
        for _ in range(each):
            await analytics.track("Click", {"a": 1}, user_id="u")

    async with Analytics("bench", root=directory) as analytics:
        start = time.perf_counter()
        await asyncio.gather(*(one(analytics) for _ in range(tasks)))
        return tasks * each / (time.perf_counter() - start)


def fsyncs(directory: Path, count: int) -> float:
    """Bare 300-byte writes with fdatasync a second."""
    directory.mkdir()
    descriptor = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT, 0o644)
    start = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, b"x" * 300)
        os.fdatasync(descriptor)
    os.close(descriptor)
    return count / (time.perf_counter() - start)


def counted() -> float:
    """`incr` with a ttl a second, over 1,000 keys."""
    counters, keys = Counters(ManualClock(), 2_000_000), [f"key:{i}" for i in range(1_000)]
    start = time.perf_counter()
    for _ in range(200):
        for key in keys:
            counters.incr(key, 1, 60)
    return 200_000 / (time.perf_counter() - start)


def decoded(batches: list[bytes]) -> float:
    """Events decoded and admitted a second, without storing them."""
    start = time.perf_counter()
    for body in batches:
        decode_batch(body, 1_767_225_600_000_000)
    return len(batches) * BATCH / (time.perf_counter() - start)


async def measured(runs: int, measure: Callable[[Path], Awaitable[float] | float]) -> float:
    """The median of `runs` in fresh directories."""
    found = []
    for _ in range(runs):
        root = Path(tempfile.mkdtemp(prefix="bench-", dir="."))
        try:
            value = measure(root / "run")
            found.append(value if isinstance(value, float) else await value)
        finally:
            shutil.rmtree(root)
    return statistics.median(found)


async def main() -> None:
    """Measure everything in turn and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    options = parser.parse_args()
    batches = bodies(options.events)
    rows: list[tuple[str, Callable[[Path], Awaitable[float] | float], Callable[[Path], float] | None, str]] = [
        ("batch of 1,000, durable", lambda d: ingest(d, batches), lambda d: ingest_floor(d, batches), "same bytes"),
        ("track, 1 in flight", lambda d: track(d, 1, 500), lambda d: fsyncs(d, 500), "bare fdatasync"),
        ("track, 256 in flight", lambda d: track(d, 256, 40), None, ""),
        ("decode and admit", lambda _: decoded(batches), None, ""),
        ("counters.incr with ttl", lambda _: counted(), None, ""),
    ]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, medians of {options.runs}"
    )
    print(f"{'work':28}{'Lakebed/s':>12}{'floor/s':>12}{'ratio':>8}  floor")
    for name, ours, floor, what in rows:
        mine = await measured(options.runs, ours)
        least = await measured(options.runs, floor) if floor is not None else None
        right = f"{least:12,.0f}{mine / least:8.2f}  {what}" if least else ""
        print(f"{name:28}{mine:12,.0f}{right}")


if __name__ == "__main__":
    asyncio.run(main())
