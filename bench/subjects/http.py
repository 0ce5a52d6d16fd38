"""Events over HTTP: one durable server process, driven by another."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

from bench import sample
from bench.front import Front
from bench.goal import FLOOR, Goal
from bench.lake import opened
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock

_BATCHES = "/v1/batch of 100 events"
_SINGLE = "/v1/track, 64 connections"
_IN_PROCESS = "in-process batch(bytes) of 100, as many in flight"
RATE = Goal("≥ 50,000 events/s", _BATCHES, least=50_000)
SHARE = Goal("≥ 0.5 x in-process", _BATCHES, of=_IN_PROCESS, least=0.5)
TRACK = Goal("≥ 0.5 x an empty 200", _SINGLE, of=FLOOR, least=0.5)
GOALS: Sequence[Goal] = (RATE, SHARE, TRACK)
EACH, BODIES = 100, 20
BATCHERS, TRACKERS = 8, 64
SECONDS = 5.0
TENANTS, BUSY = 1_000, 10
_EMPTY_200 = "the same request, answered an empty 200 by the same server"
_MB = 1e6
_ID = re.compile(rb'"messageId":"[0-9a-f]{8}-[0-9a-f]{4}')


def batches() -> list[bytes]:
    """Bodies as Segment's clients send them; `@` stands where each must be made different."""
    events = (sample.batch(number, EACH) for number in range(BODIES))
    return [b'{"batch":%s,"sentAt":null}' % _ID.sub(b'"messageId":"@@@@@@@@@@@@', body) for body in events]


def singles() -> list[bytes]:
    """One event a body, as they are in the sample's batches."""
    import msgspec  # only the process that sends them needs it

    events = msgspec.json.decode(sample.batch(0, EACH), type=list[msgspec.Raw])
    bodies = [_ID.sub(b'"messageId":"@@@@@@@@@@@@', bytes(event)) for event in events]
    return [event for event in bodies if b'"type":"track"' in event]


def over_http(directory: Path, seconds: float, path: str, connections: int) -> Iterator[Figures]:
    """The server, with a fresh object each turn; memory at the end of the load."""
    bodies = batches() if path.endswith("batch") else singles()
    for turn in count():
        root = directory / str(turn)
        with closing(Front(root)) as front:
            front.load(path, bodies, connections, 1)  # the server's imports and first-time work are not measured
            figures = front.load(path, bodies, connections, seconds)
            yield figures | {"events": figures["rate"] * EACH, "mb": front.resident_bytes() / _MB}
        shutil.rmtree(root)


async def _sent(analytics: object, bodies: list[bytes], seconds: float, turn: int) -> int:
    until, sent = time.perf_counter() + seconds, count()
    completed = 0

    async def one() -> None:
        nonlocal completed
        while time.perf_counter() < until:
            number = next(sent)
            tag = b"%04x%08x" % (turn, number)
            await analytics.batch(bodies[number % len(bodies)].replace(b"@@@@@@@@@@@@", tag))
            completed += 1

    await asyncio.gather(*(one() for _ in range(BATCHERS)))
    return completed


def in_process(directory: Path, seconds: float) -> Iterator[Figures]:
    """The same bodies, without a server."""
    bodies = batches()
    for turn in count():
        with opened(directory / str(turn)) as (loop, analytics):
            loop.run(_sent(analytics, bodies, 0.5, 1))
            start = time.perf_counter()
            completed = loop.run(_sent(analytics, bodies, seconds, 2))
            rate = completed * EACH / (time.perf_counter() - start)
        shutil.rmtree(directory / str(turn))
        yield {"events": rate}


def tenants(directory: Path, seconds: float, objects: int) -> Iterator[Figures]:
    """All have a key and have sent something once; then a few of them send, one event a request."""
    keys = Keys(directory, SystemClock())
    secrets = tuple(keys.create(f"tenant-{number}", "write")[1] for number in range(objects))
    with closing(Front(directory, tenants=True)) as front:
        before = front.resident_bytes()
        for number, key in enumerate(secrets):
            front.post("/v1/track", b'{"event":"Signed Up","userId":"ann","messageId":"first-%d"}' % number, key)
        while True:
            figures = front.load("/v1/track", singles(), BUSY, seconds, secrets[:BUSY])
            resident = front.resident_bytes()
            yield figures | {"mb": resident / _MB, "kb": (resident - before) / objects / 1e3}


def rows(run: Run) -> list[Row]:
    """Batches, single events, memory, and many tenants."""
    seconds = max(1.0, SECONDS * min(1.0, run.size))
    objects = run.of(TENANTS, least=20, most=TENANTS)
    load = {"seconds": seconds, "connections": TRACKERS}
    results = run.turns(
        [
            Contender("batch", over_http, {"seconds": seconds, "path": "/v1/batch", "connections": BATCHERS}),
            Contender("in-process", in_process, {"seconds": seconds}),
            Contender("track", over_http, load | {"path": "/v1/track"}),
            Contender("empty", over_http, load | {"path": "/empty/v1/track"}),
            Contender("tenants", tenants, {"seconds": seconds, "objects": objects}),
        ]
    )
    inside = {_IN_PROCESS: results.get("in-process", "events")}
    many, few = f"{objects:,} tenants, {BUSY} of them busy", f"{_SINGLE}, one event each"
    return [
        Row(
            "http",
            f"{_BATCHES}, {BATCHERS} connections",
            "events/s",
            results.get("batch", "events"),
            inside,
            goals=[RATE, SHARE],
        ),
        *(Row("http", f"{_BATCHES}, {share}", "ms", results.get("batch", share)) for share in ("p50", "p99")),
        Row(
            "http",
            few,
            "requests/s",
            results.get("track", "rate"),
            {},
            results.get("empty", "rate"),
            _EMPTY_200,
            [TRACK],
        ),
        *(
            Row(
                "http",
                f"{_SINGLE}, {share}",
                "ms",
                results.get("track", share),
                {},
                results.get("empty", share),
                _EMPTY_200,
            )
            for share in ("p50", "p99")
        ),
        Row("http", "memory of the server after batches", "MB", results.get("batch", "mb")),
        Row("http", f"{many}, /v1/track, p50", "ms", results.get("tenants", "p50")),
        Row("http", f"{many}, /v1/track, p99", "ms", results.get("tenants", "p99")),
        Row("http", f"{many}, memory of the server", "MB", results.get("tenants", "mb")),
        Row("http", f"{many}, memory of one", "KB", results.get("tenants", "kb")),
    ]
