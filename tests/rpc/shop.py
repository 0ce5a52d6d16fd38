"""The object that tests of stubs call: plain and async methods, attributes, a part, private names."""

from __future__ import annotations

import asyncio
from datetime import date

import msgspec

from lakebed.objects.durable_object import DurableObject


class Day(msgspec.Struct):
    date: str
    dau: int


class Tally:
    """What `counters` is to Analytics: synchronous, reached by attribute."""

    def __init__(self):
        self.values = {}

    def incr(self, key, amount=1):
        self.values[key] = self.values.get(key, 0) + amount
        return self.values[key]


class Shop(DurableObject):
    hidden = frozenset({"secret"})
    kind = "shop"

    def __init__(self, name, **arguments):
        super().__init__(name, **arguments)
        self.counters = Tally()
        self.log = []
        self.gate = asyncio.Event()
        self.told = []
        self.day = date(2026, 1, 1)

    def secret(self):
        return "never"

    def _private(self):
        return "never"

    async def dau(self, days):
        await asyncio.sleep(0)
        return [Day(f"2026-01-0{n + 1}", n * 10) for n in range(days)]

    def add(self, left, right):
        """Plain method."""
        return left + right

    async def aadd(self, left, right):
        self.log.append(f"aadd {left} {right}")
        await asyncio.sleep(0)
        return left + right

    def note(self, text):
        self.log.append(text)
        return len(self.log)

    async def anote(self, text):
        self.log.append(text)
        count = len(self.log)
        await asyncio.sleep(0)
        return count

    async def wait(self):
        await self.gate.wait()
        return "through"

    def release(self):
        self.gate.set()

    def echo(self, *args, **kwargs):
        return args, kwargs

    async def fail(self, message="no"):
        raise ValueError(message)

    def notes(self):
        return list(self.log)

    def self_(self):
        return self
