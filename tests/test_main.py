"""`python -m lakebed`."""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3

import pytest

from lakebed import Analytics, ManualClock, Namespace
from lakebed.__main__ import main
from lakebed.stub import trips


def test_without_arguments_it_says_what_it_is(capsys):
    """Version, an example and the commands."""
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Lakebed 0.")
    assert "python -m lakebed serve" in out


def test_check_of_a_healthy_object(tmp_path, capsys):
    """Exit status 0 and a line that says so."""

    async def use():
        async with Analytics("tom", root=tmp_path) as tom:
            await tom.track("Seen")

    asyncio.run(use())
    assert main(["check", str(tmp_path / "tom")]) == 0
    assert "no problems" in capsys.readouterr().out


def test_check_prints_problems(tmp_path, capsys, monkeypatch):
    """Exit status 1 and a line a problem. The class that the object was opened as is the one that is asked."""

    class Troubled(Analytics):
        async def check(self):
            problems = await super().check()
            return [*problems, *(type("P", (), {"where": "log", "message": text}) for text in ("one", "two"))]

    async def use():
        async with Troubled("tom", root=tmp_path):
            pass

    asyncio.run(use())
    monkeypatch.chdir(tmp_path)
    assert main(["check", "tom"]) == 1
    assert capsys.readouterr().out == "log: one\nlog: two\n"


def test_check_makes_nothing(tmp_path, capsys):
    """A directory that is no object is exit status 2, and stays as it was."""
    (tmp_path / "tom").mkdir()
    assert main(["check", str(tmp_path / "tom")]) == 2
    assert main(["check", str(tmp_path / "none")]) == 2
    assert main(["check", str(tmp_path / "No Name")]) == 2
    assert "not an object" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["tom"]


async def test_check_of_an_open_object_is_told_its_owner(tmp_path, capsys):
    """The lock is not got around."""
    async with Analytics("tom", root=tmp_path):
        assert await asyncio.to_thread(main, ["check", str(tmp_path / "tom")]) == 2
    assert "open in this process" in capsys.readouterr().err


def test_serve_without_the_extra_says_what_to_install(capsys, monkeypatch):
    """No traceback: the name of the extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "uvicorn" else find(name, *a))
    assert main(["serve"]) == 2
    assert "needs uvicorn: pip install 'lakebed[server]'" in capsys.readouterr().err


def test_serve_refuses_other_addresses(tmp_path, capsys):
    """A host that is not loopback is exit status 2 with the reason."""
    assert main(["serve", "--root", str(tmp_path), "--host", "0.0.0.0"]) == 2  # noqa: S104 - it is refused
    assert "no authentication" in capsys.readouterr().err


async def test_namespace_of_real_objects(tmp_path):
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
def test_the_loop_may_end_without_close(tmp_path, tracked):
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


async def test_schedules_of_a_sleeping_analytics(tmp_path):
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
