"""ObjectPool and ObjectHandle: the short way to an object."""

from __future__ import annotations

import asyncio

import pytest

from lakebed.clock import ManualClock
from lakebed.errors import InvalidName, ObjectClosed
from lakebed.objects.namespace import Namespace
from tests.objects.small_objects import Box, happened, reset


class Log(Box):
    """Writes down its calls; opening and closing take as many turns of the loop as they are told."""

    opening = closing = 0
    calls: list[int] = []  # noqa: RUF012 - of all instances: one that slept is another object

    async def _open(self):
        await super()._open()
        for _ in range(self.opening):
            await asyncio.sleep(0)

    async def _close(self):
        for _ in range(self.closing):
            await asyncio.sleep(0)
        await super()._close()

    async def note(self, number):
        self.calls.append(number)
        await asyncio.sleep(0)

    def now(self, number):
        self.calls.append(number)

    async def fail(self, gate):
        await gate.wait()
        raise ValueError("lost")


@pytest.fixture(autouse=True)
def _fresh():
    reset()
    Log.calls = []
    Log.opening = Log.closing = 0


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
async def test_calls_begin_in_order(tmp_path, turns):
    """Plain and async, by handles and by a stub, while the object opens, is open, and closes."""
    Log.opening = Log.closing = turns
    clock = ManualClock()
    async with Namespace(tmp_path, Log, clock=clock, idle_s=1) as namespace:
        calls, sleeping = [], []
        for number in range(120):
            if number % 30 == 29:
                await asyncio.gather(*calls)
                clock.advance(10)
                sleeping.append(asyncio.ensure_future(namespace.sleep_idle()))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if number % 30 in (0, 29):
                calls = []
            handle = namespace.handle("tom")
            calls.append((handle.note if number % 2 else handle.now)(number))
            if number % 3:
                await asyncio.sleep(0)
        await asyncio.gather(*calls, *sleeping)
        assert Log.calls == list(range(120))
        assert len(happened("open")) > 1


async def test_one_opening_for_all_that_wait(tmp_path):
    """A failure to open reaches every call that waited, and is not tried again for each."""
    async with Namespace(tmp_path, Log) as namespace:
        Box.broken, Box.gate = OSError("no disk"), asyncio.Event()
        calls = [namespace.handle("tom").now(number) for number in range(5)]
        while not happened("open"):
            await asyncio.sleep(0)
        Box.gate.set()
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(failure) for failure in failures] == ["no disk"] * 5
        assert happened("open") == ["tom"]


async def test_a_cancelled_await_does_not_stop_the_call(tmp_path):
    """The call goes on; its failure, which no caller received, is in check()."""
    async with Namespace(tmp_path, Log) as namespace:
        gate = asyncio.Event()
        waiting = asyncio.ensure_future(_value(namespace.handle("tom").fail(gate)))
        while not happened("open"):
            await asyncio.sleep(0)
        waiting.cancel()
        gate.set()
        await namespace.flush()
        assert namespace.check() == ["ValueError: lost"]
        with pytest.raises(ValueError, match="lost"):
            await namespace.handle("tom").fail(gate)
        assert namespace.check() == ["ValueError: lost"]


async def test_closing_waits_for_calls(tmp_path):
    """A call that was made is carried out; a later one is ObjectClosed."""
    namespace = Namespace(tmp_path, Log)
    call = namespace.handle("tom").add(3)
    await namespace.close()
    assert await call == 3
    with pytest.raises(ObjectClosed):
        await namespace.handle("tom").add(1)


async def test_a_handle_is_of_the_recorded_class(tmp_path):
    """As `get`; an invalid name is refused before anything is called."""
    async with Namespace(tmp_path) as namespace:
        await namespace.Log("tom").add(2)
        assert await namespace.handle("tom").get() == 2
        await namespace.pool.sleep("tom")
        assert await namespace.handle("tom").get() == 2
        with pytest.raises(InvalidName):
            namespace.handle("../tom")
        with pytest.raises(AttributeError):
            namespace.handle("tom")._open  # noqa: B018 - it is the access that fails


async def _value(awaitable):
    return await awaitable
