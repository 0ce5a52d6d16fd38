"""Processes that die by SIGKILL: python -m bench.crashing fill|reopen WHO DIRECTORY EVENTS."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from bench import sample
from bench.lake import NAME, UNSEALED
from bench.peers import duck, sqlite
from lakebed import Analytics


class Store(Protocol):
    """What can be filled and opened."""

    def take(self, body: bytes) -> None:
        """Store a batch; durable when it returns."""
        ...


class Lakebed:
    """An object that seals nothing."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.Runner()
        self._analytics = Analytics(NAME, root=directory, **UNSEALED)
        self._loop.run(self._analytics.open())

    def take(self, body: bytes) -> None:
        """Store a batch."""

        async def batch() -> None:
            await self._analytics.batch(body)

        self._loop.run(batch())


def _sqlite(directory: Path) -> Store:
    table = sqlite.RawEvents(directory / "raw.db", "FULL")
    table.connection.execute("PRAGMA wal_autocheckpoint = 0")  # as the log: nothing has been moved on yet
    return table


STORES: dict[str, Callable[[Path], Store]] = {
    "lakebed": Lakebed,
    "sqlite": _sqlite,
    "duckdb": lambda directory: duck.Table(directory / "events.duckdb"),
}


def _bodies(events: int) -> Iterator[bytes]:
    return (sample.batch(number) for number in range(max(1, events // sample.BATCH)))


def fill(make: Callable[[Path], Store], directory: Path, events: int) -> None:
    """Store events, a thousand at a time."""
    store = make(directory)
    for body in _bodies(events):
        store.take(body)


def reopen(make: Callable[[Path], Store], directory: Path) -> None:
    """Say how many milliseconds there are between opening and the first acknowledgement.

    Another, empty store is opened and used first: what a process imports once is not of this opening.
    """
    body = sample.batch(time.time_ns(), 1)
    make(Path(tempfile.mkdtemp(dir=directory))).take(body)
    start = time.perf_counter()
    make(directory).take(body)
    print((time.perf_counter() - start) * 1_000, flush=True)


def main() -> None:
    """Do it, and die."""
    what, who, directory, events = sys.argv[1:]
    if what == "fill":
        fill(STORES[who], Path(directory), int(events))
    else:
        reopen(STORES[who], Path(directory))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
