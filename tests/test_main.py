"""`python -m lakebed` and what an app may do without it: namespaces of real objects, loops that just end."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys

import pytest

from lakebed import Analytics, ManualClock, Namespace
from lakebed.rpc.stub import trips


@pytest.mark.integration
def test_python_m_lakebed_runs_the_command_line():
    """The module starts what the script `lakebed` starts."""
    done = subprocess.run([sys.executable, "-m", "lakebed", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lakebed 0.")


async def test_a_namespace_of_analytics_objects(tmp_path):
    """Stubs of Analytics: fire and forget, one trip for a chain, counters, schedules made up for; check() is empty."""
    async with Namespace(tmp_path, Analytics) as ns:
        for n in range(500):
            ns.Analytics("tom").track("Seen", {"n": n}, user_id=f"u{n % 7}")
        await ns.flush()
        assert await ns.Analytics("tom").dau(7)[6].dau == 7
        assert trips(ns.Analytics("tom")) == 2
        ns.Analytics("tom").counters.incr("clicks")
        assert await ns.Analytics("tom").counters.get("clicks") == 1
        receipt = await Analytics.for_("sam", tmp_path).track("Seen")
        assert receipt.status == "stored"
        assert await ns.get("tom").query("SELECT count(*) FROM events").scalar() == 500
        assert await ns.get("tom").check() == []
        await Namespace.default(tmp_path).close()
    assert ns.check() == []


@pytest.mark.parametrize("tracked", [0, 3])
def test_events_are_stored_when_the_loop_ends_without_close(tmp_path, tracked):
    """`Analytics.for_` in a script that just ends: what was tracked is there in the next run."""

    async def script():
        for n in range(tracked):
            await Analytics.for_("tom", tmp_path).track("a", message_id=f"a{n}")
        for n in range(50):
            Analytics.for_("tom", tmp_path).track("b", message_id=f"b{n}")

    asyncio.run(script())

    async def look():
        async with Analytics("tom", root=tmp_path) as tom:
            return tom.stats().next_seq, await tom.check()

    assert asyncio.run(look()) == (50 + tracked, [])


async def test_a_sleeping_object_wakes_for_its_schedule(tmp_path):
    """A real object that sleeps when its hour comes is woken, rolls up by its own scheduler, and sleeps again."""
    clock = ManualClock()
    async with Namespace(tmp_path, Analytics, clock=clock, idle_s=60) as ns:
        await ns.get("tom").track("Seen", user_id="a")
        clock.advance(600)
        assert await ns.sleep_idle() == ["tom"]
        assert await ns.wake_due() == []
        clock.advance(3600)
        assert await ns.wake_due() == ["tom"]
        assert ns.awake() == []
        assert await ns.wake_due() == []
        assert ns.check() == []
        assert await ns.get("tom").check() == []
    with sqlite3.connect(tmp_path / "tom" / "storage.db") as storage:
        tables = {name for (name,) in storage.execute("SELECT name FROM sqlite_master")}
        assert tables
    storage.close()
