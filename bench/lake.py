"""Lakebed as a contender: objects to fill, and asyncio in a generator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench import sample
from lakebed import Analytics, ManualClock
from lakebed.clock import from_us

NAME = "bench"
PROMOTE = {"revenue": float, "country": str}
# Segments are sealed by their size alone: the clock of a benchmark runs so fast that each batch would become a file.
BY_SIZE: dict[str, Any] = {"segment_age_s": 1e9}
# No file is sealed and nothing is pruned while an object has these: for what is about the log alone.
UNSEALED: dict[str, Any] = {
    "segment_events": 1 << 40,
    "segment_bytes": 1 << 40,
    "segment_age_s": 1e9,
    "tail_bytes": 1 << 40,
}


@contextmanager
def opened(root: Path, **options: Any) -> Iterator[tuple[asyncio.Runner, Analytics]]:
    """An open object, and the loop that it lives on."""
    with asyncio.Runner() as loop:
        analytics = Analytics(NAME, root=root, promote=PROMOTE, **options)
        loop.run(analytics.open())
        try:
            yield loop, analytics
        finally:
            loop.run(analytics.close())


async def fill(analytics: Analytics, bodies: list[bytes]) -> float:
    """Hand batches in, each durable before the next. Seconds."""
    start = time.perf_counter()
    for body in bodies:
        await analytics.batch(body)
    return time.perf_counter() - start


async def fill_days(analytics: Analytics, clock: ManualClock, events: int, days: float, first: int = 0) -> None:
    """Fill with `events` whose times, and times of reception, are spread over the `days` from the clock's now on."""
    for at_us, body in sample.spread(events, clock.now_us(), days, first):
        clock.advance((at_us - clock.now_us()) / 1e6)
        await analytics.batch(body)


def clock_before(days: float) -> ManualClock:
    """A clock that stands so many days before the end of the sample's time."""
    return ManualClock(from_us(sample.NOW_US) - timedelta(days=days))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all do not pass."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
