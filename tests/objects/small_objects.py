"""Small durable objects that tests of opening, waking and sleeping use."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from pathlib import Path

from lakebed.clock import to_us
from lakebed.objects.durable_object import DurableObject
from lakebed.scheduling.schedule import every, schedules_of


class Box(DurableObject):
    """Keeps a number in a file; writes down what happens to it."""

    events: list[tuple[str, str]] = []  # noqa: RUF012 - what all boxes did
    gate: asyncio.Event | None = None
    broken: Exception | None = None

    async def _open(self):
        self.events.append(("open", self.name))
        if self.gate is not None:
            await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        path = self.directory / "number"
        self.number = int(path.read_text()) if path.exists() else 0

    async def _close(self):
        self.events.append(("close", self.name))
        if hasattr(self, "number"):
            (self.directory / "number").write_text(str(self.number))

    async def add(self, amount):
        self.check_open()
        await asyncio.sleep(0)
        self.number += amount
        return self.number

    def get(self):
        self.check_open()
        return self.number

    async def flush(self):
        self.events.append(("flush", self.name))


class Scheduled(Box):
    """Runs what is due by the times in a file, as Scheduler does with its storage."""

    running = 0
    most = 0

    @every.hour
    async def hourly(self):
        self.events.append(("hourly", self.name))

    @every.day.at("3am")
    async def nightly(self):
        self.events.append(("nightly", self.name))

    async def run_due(self):
        Scheduled.running += 1
        Scheduled.most = max(self.most, self.running)
        await asyncio.sleep(0)
        for method in schedules_of(type(self)):
            last = self.directory / f"{method.method_name}.last"
            since = int(last.read_text()) if last.exists() else to_us(datetime(2026, 1, 1, tzinfo=UTC))
            due = method.schedule.latest_due(since, self.clock.now_us())
            if due is not None:
                await getattr(self, method.method_name)()
                last.write_text(str(due))
        Scheduled.running -= 1


class Quiet(Box):
    """An object without schedules."""


def reset():
    """Forget what all boxes did and were told to do."""
    Box.events = []
    Box.gate = Box.broken = None
    Scheduled.running = Scheduled.most = 0


def descriptors():
    gc.collect()  # what an earlier test left for the collector to close
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def happened(what):
    return [name for event, name in Box.events if event == what]
