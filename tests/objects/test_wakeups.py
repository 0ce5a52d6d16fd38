"""Schedules of sleeping objects."""

from __future__ import annotations

import asyncio

import pytest

from lakebed.clock import ManualClock
from lakebed.objects.namespace import Namespace
from lakebed.scheduling.schedule import every
from tests.objects.small_objects import Box, Scheduled, happened, reset


@pytest.fixture(autouse=True)
def _fresh():
    reset()


@pytest.fixture
def clock():
    return ManualClock()


async def test_schedules_of_sleeping_objects_fire(tmp_path, clock):
    """When a schedule is due the object wakes, makes up for all it missed, and sleeps again; others stay asleep."""
    async with Namespace(tmp_path, clock=clock) as ns:
        await asyncio.gather(ns.Scheduled("a").add(1), ns.Scheduled("b").add(1), ns.Quiet("q").add(1))
        await ns.wake_due()
        clock.advance(1800)
        assert sorted(await ns.sleep_idle()) == ["a", "b", "q"]
        assert await ns.wake_due() == []
        clock.advance(1800)
        Box.events.clear()
        assert await ns.wake_due() == ["a", "b"]
        assert happened("hourly") == ["a", "b"]
        assert sorted(happened("close")) == ["a", "b"]
        assert ns.awake() == []
        assert await ns.wake_due() == []
        Box.events.clear()
        clock.advance(86400)
        assert await ns.wake_due() == ["a", "b"]
        assert happened("hourly") == happened("nightly") == ["a", "b"]


async def test_at_most_four_wake_at_once(tmp_path, clock):
    """Many sleeping objects with one schedule do not all wake together."""
    async with Namespace(tmp_path, Scheduled, clock=clock) as ns:
        names = [f"o{n}" for n in range(30)]
        await asyncio.gather(*(ns.get(name).add(1) for name in names))
        clock.advance(1800)
        await ns.sleep_idle()
        clock.advance(1800)
        assert sorted(await ns.wake_due()) == sorted(names)
        assert sorted(happened("hourly")) == sorted(names)
        assert Scheduled.most == 4


async def test_missed_schedules_are_made_up_for_after_a_restart(tmp_path, clock):
    """Opening a namespace wakes the objects that missed a schedule while nothing ran."""
    async with Namespace(tmp_path, Scheduled, clock=clock) as ns:
        await ns.get("tom").add(1)
    clock.advance(7200)
    async with Namespace(tmp_path, Scheduled, clock=clock) as ns, asyncio.timeout(10):
        while not happened("hourly"):
            await asyncio.sleep(0.001)
    assert happened("hourly") == ["tom"]


async def test_one_failing_object_does_not_stop_the_others(tmp_path, clock):
    """An object that cannot be woken is in check(); one that another process has open runs its own schedules."""
    async with Namespace(tmp_path, Scheduled, clock=clock) as ns:
        await asyncio.gather(*(ns.get(name).add(1) for name in ("a", "b", "c", "d")))
        clock.advance(1800)
        await ns.sleep_idle()
        clock.advance(1800)
        (tmp_path / "a" / "object.json").write_text("{")
        (tmp_path / "b" / "number").write_text("no number")
        (tmp_path / "d" / "object.json").rename(tmp_path / "plate")
        (tmp_path / "d" / "object.json").mkdir()  # what the system refuses to read
        await ns.wake_due()
        assert happened("hourly") == ["c"]
        assert any("manifest" in problem for problem in ns.check())
        assert any("no number" in problem for problem in ns.check())
        assert any("ObjectUnavailable" in problem and "Is a directory" in problem for problem in ns.check())
    async with Scheduled("c", root=tmp_path, clock=clock):
        clock.advance(3600)
        ns = Namespace(tmp_path, Scheduled, clock=clock)
        (tmp_path / "b" / "number").write_text("1")
        await ns.wake_due()
        assert not any("ObjectLocked" in problem for problem in ns.check())
        await ns.close()


async def test_schedules_of_an_unknown_class_are_reported(tmp_path, clock):
    """An object whose class is not imported cannot run its schedules: check() says so."""
    async with Namespace(tmp_path, clock=clock) as ns:
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "object.json").write_text('{"format": 1, "class": "Gone"}')
        (tmp_path / "odd" / "lock").write_text("")
        assert await ns.wake_due() == []
        assert "its class Gone is not known" in ns.check()[0]


async def test_the_timer_wakes_for_schedules(tmp_path):
    """With the real clock a sleeping object's schedule fires by itself."""

    class Ticking(Scheduled):
        @every(1).seconds
        async def tick(self):
            self.events.append(("tick", self.name))

    async with Namespace(tmp_path, Ticking, idle_s=0.01) as ns:
        await ns.get("tom").add(1)
        async with asyncio.timeout(20):
            while len(happened("tick")) < 2:
                await asyncio.sleep(0.01)
    assert ns.check() == []
