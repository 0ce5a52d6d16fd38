"""Namespace: waking, sleeping, flushing, closing."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc

import pytest

from lakebed.clock import ManualClock
from lakebed.errors import (
    NotReachable,
    ObjectClosed,
    ObjectLocked,
    WrongObject,
)
from lakebed.objects.namespace import Namespace
from lakebed.rpc.stub import trips
from tests.objects.small_objects import Box, Scheduled, descriptors, happened, reset


@pytest.fixture(autouse=True)
def _fresh():
    reset()


@pytest.fixture
def clock():
    return ManualClock()


async def test_objects_wake_once_and_sleep_when_idle(tmp_path, clock):
    """Concurrent first calls open once; idle_s after the last call the object sleeps; the next call wakes it."""
    async with Namespace(tmp_path, Box, clock=clock, idle_s=60) as ns:
        first, second = ns.get("tom"), ns.Box("tom")
        assert ns.awake() == []
        await asyncio.gather(*(stub.add(1) for stub in (first, second) for _ in range(5)))
        assert happened("open") == ["tom"]
        clock.advance(59)
        assert await ns.sleep_idle() == []
        assert await first.get() == 10
        clock.advance(59)
        assert await ns.sleep_idle() == []
        clock.advance(1)
        assert await ns.sleep_idle() == ["tom"]
        assert ns.awake() == []
        assert await second.get() == 10
        assert happened("open") == ["tom", "tom"]


async def test_an_object_with_a_call_under_way_stays_awake(tmp_path, clock):
    """Sleep waits for calls, and calls that come while it closes wait for it to wake again."""
    gate, closing, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Waiting(Box):
        async def wait(self):
            await gate.wait()

        async def _close(self):
            closing.set()
            await go.wait()
            await super()._close()

    async with Namespace(tmp_path, Waiting, clock=clock, idle_s=1) as ns:
        stub = ns.get("tom")
        waiting = asyncio.ensure_future(stub.wait())
        while not happened("open"):
            await asyncio.sleep(0)
        clock.advance(100)
        assert await ns.sleep_idle() == []
        gate.set()
        await waiting
        clock.advance(100)
        sleeping = asyncio.ensure_future(ns.sleep_idle())
        await closing.wait()
        calls = asyncio.gather(*(stub.add(1) for _ in range(3)))
        await asyncio.sleep(0)
        go.set()
        assert await sleeping == ["tom"]
        assert await calls == [1, 2, 3]
        assert happened("open") == ["tom", "tom"]


async def test_a_failing_wake_reaches_every_waiting_call(tmp_path):
    """Each call that waited for the object gets the error of opening; the next call tries again."""
    async with Namespace(tmp_path, Box) as ns:
        Box.broken = OSError("no disk")
        stub = ns.get("tom")
        outcomes = await asyncio.gather(stub.add(1), stub.add(2), ns.get("tom").get(), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["no disk"] * 3
        Box.broken = None
        assert await stub.add(1) == 1


async def test_calling_a_locked_object_raises(tmp_path):
    """A call to an object that another owner has open raises ObjectLocked."""
    async with Box("tom", root=tmp_path), Namespace(tmp_path, Box) as ns:
        with pytest.raises(ObjectLocked):
            await ns.get("tom").get()


async def test_classes_by_name(tmp_path):
    """`ns.Box("tom")` finds the class by its name; an unknown one names what is known."""
    async with Namespace(tmp_path) as ns:
        assert await ns.Box("tom").add(2) == 2
        assert await ns.Scheduled("sam").add(3) == 3
        with pytest.raises(AttributeError, match=r"'Boxx'.*Box"):
            ns.Boxx("tom")
        assert await ns.get("sam").get() == 3
        with pytest.raises(WrongObject):
            await ns.Quiet("tom").get()
        assert ns.names() == ["sam", "tom"]


async def test_get_without_a_class_uses_the_recorded_one(tmp_path):
    """An object is opened as the class that it was last opened as; a class that is not known is an error."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "object.json").write_text('{"format": 1, "class": "Gone"}')
    async with Namespace(tmp_path) as ns:
        with pytest.raises(NotReachable, match="'Gone'"):
            ns.get("odd")


async def test_names_lists_objects_only(tmp_path):
    """Files, and directories that no object was opened in, are not objects."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    async with Namespace(tmp_path, Box) as ns:
        await asyncio.gather(*(ns.get(name).get() for name in "cab"))
        assert ns.names() == ns.awake() == ["a", "b", "c"]
    async with Namespace(tmp_path / "none", Box) as ns:
        assert ns.names() == []


async def test_close_loses_nothing(tmp_path):
    """Calls that were not awaited are carried out before close() returns; then every object is closed."""
    async with Namespace(tmp_path, Box) as ns:
        for name in "abc":
            for _ in range(50):
                ns.get(name).add(1)
    assert sorted(happened("close")) == ["a", "b", "c"]
    assert [(tmp_path / name / "number").read_text() for name in "abc"] == ["50"] * 3
    assert ns.check() == []


async def test_flush_waits_for_all_and_flushes_objects(tmp_path):
    """flush() returns when every call made before is answered, and calls the objects' own flush."""
    async with Namespace(tmp_path, Box) as ns:
        promise = ns.get("tom").add(7)
        await ns.flush()
        assert Box.events == [("open", "tom"), ("flush", "tom")]
        before = trips(ns.get("tom"))
        assert await promise == 7
        assert trips(ns.get("tom")) == before


async def test_after_close(tmp_path):
    """A stub of a closed namespace raises ObjectClosed; closing twice is fine; it may be opened again."""
    ns = Namespace(tmp_path, Box)
    stub = ns.get("tom")
    await stub.add(1)
    await ns.close()
    await ns.close()
    with pytest.raises(ObjectClosed):
        await stub.get()
    async with ns:
        assert await stub.get() == 1


async def test_nothing_of_a_namespace_is_left(tmp_path):
    """No task, thread or descriptor outlives close()."""
    before = descriptors(), threading.active_count(), len(asyncio.all_tasks())
    async with Namespace(tmp_path, Scheduled) as ns:
        await asyncio.gather(*(ns.get(f"o{n}").add(1) for n in range(20)))
        await ns.wake_due()
    assert (descriptors(), threading.active_count(), len(asyncio.all_tasks())) == before


async def test_a_failing_close_of_an_idle_object_is_reported(tmp_path, clock):
    """The error of a close that no caller waits for goes to on_error and check()."""

    class Bad(Box):
        async def _close(self):
            raise OSError("stuck")

    errors = []
    async with Namespace(tmp_path, Bad, clock=clock, on_error=errors.append) as ns:
        await ns.get("tom").add(1)
        clock.advance(1000)
        assert await ns.sleep_idle() == ["tom"]
        await asyncio.sleep(0)
        assert ns.check() == ["OSError: stuck"]
        assert [str(error) for error in errors] == ["stuck"]


async def test_the_timer_puts_to_sleep(tmp_path):
    """With the real clock the namespace's one timer closes idle objects by itself."""
    async with Namespace(tmp_path, Box, idle_s=0.01) as ns:
        await ns.get("tom").add(1)
        async with asyncio.timeout(10):
            while not happened("close"):
                await asyncio.sleep(0.01)
        assert ns.awake() == []


async def test_close_raises_what_closing_raised(tmp_path):
    """Of several objects that fail to close or flush every one is closed, and the first failure is raised."""

    class Bad(Box):
        async def flush(self):
            raise OSError(f"{self.name} cannot flush")

        async def _close(self):
            await super()._close()
            if self.name != "c":
                raise OSError(f"{self.name} stuck")

    ns = Namespace(tmp_path, Bad)
    await asyncio.gather(*(ns.get(name).add(1) for name in "abc"))
    with pytest.raises(OSError, match="a stuck") as caught:
        await ns.close()
    assert "b stuck" in caught.value.__notes__[0]
    assert "cannot flush" in str(caught.value.__context__)
    assert happened("close") == ["a", "b", "c"]
    assert not ns.is_open
    await ns.close()


async def test_objects_asleep_cost_nothing(tmp_path):
    """Promise: at most 20 KB an object asleep. A namespace that has used many keeps nothing of those that sleep."""
    clock = ManualClock()
    async with Namespace(tmp_path, Box, clock=clock, idle_s=1) as ns:

        async def use(numbers):
            await asyncio.gather(*(ns.get(f"o{n}").add(1) for n in numbers))
            clock.advance(10)
            await ns.sleep_idle()

        await use(range(20))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await use(range(20, 120))
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert len(ns.names()) == 120
        assert ns.awake() == []
        assert grown / 100 < 2_000
