"""Many objects in one process: what one asleep costs, and how long waking takes."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.goal import Goal
from bench.lake import percentile
from bench.measure import Contender, Figures
from bench.memory import resident_bytes
from bench.row import Row
from bench.run import Run
from lakebed import Analytics, Namespace

_DESIGN = "10,000 objects in one process"
ASLEEP = Goal("≤ 20 KB each", f"{_DESIGN}, asleep", most=20)
WAKE = Goal("≤ 20 ms", f"{_DESIGN}, wake", most=20)
GOALS: Sequence[Goal] = (ASLEEP, WAKE)
OBJECTS, FIRST, WOKEN = 1_000, 30, 60
_IDLE_S = 0.05


async def _asleep(namespace: Namespace) -> None:
    """Until nobody is awake."""
    until = time.monotonic() + 60
    while namespace.awake():
        assert time.monotonic() < until, "objects do not go to sleep"
        await asyncio.sleep(_IDLE_S)


async def _used(namespace: Namespace, names: list[str]) -> None:
    for name in names:
        await namespace.stub(Analytics, name).track("Signed Up", {"plan": "pro"}, user_id="alice")
    await _asleep(namespace)


async def _waking(namespace: Namespace, names: list[str]) -> list[float]:
    times = []
    for name in names:
        start = time.perf_counter()
        await namespace.stub(Analytics, name).track("Came Back", user_id="alice")
        times.append((time.perf_counter() - start) * 1_000)
    await _asleep(namespace)
    return times


def lakebed(directory: Path, objects: int) -> Iterator[Figures]:
    """All are used once and sleep; then some are woken by a `track`, one after the other."""
    with asyncio.Runner() as loop:
        namespace = Namespace(directory, idle_s=_IDLE_S)
        loop.run(namespace.open())
        names = [f"tenant-{number}" for number in range(FIRST + objects)]
        loop.run(_used(namespace, names[:FIRST]))  # imports and first-time work are not counted
        gc.collect()
        before = resident_bytes()
        loop.run(_used(namespace, names[FIRST:]))
        gc.collect()
        bytes_each = (resident_bytes() - before) / objects
        while True:
            times = loop.run(_waking(namespace, names[:: max(1, len(names) // WOKEN)]))
            yield {"kb": bytes_each / 1_000, "p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def rows(run: Run) -> list[Row]:
    """Bytes and milliseconds."""
    objects = run.of(OBJECTS, least=40)
    results = run.turns([Contender("lakebed", lakebed, {"objects": objects})])
    many = f"{objects:,} objects in one process"
    return [
        Row("objects", f"{many}, each asleep", "KB", results.get("lakebed", "kb"), goals=[ASLEEP]),
        Row("objects", f"{many}, wake to first ack, p50", "ms", results.get("lakebed", "p50"), goals=[WAKE]),
        Row("objects", f"{many}, wake to first ack, p99", "ms", results.get("lakebed", "p99")),
    ]
