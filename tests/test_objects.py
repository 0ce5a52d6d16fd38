"""DurableObject and Namespace: ownership, opening, waking, sleeping, schedules."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakebed.clock import ManualClock, to_us
from lakebed.disk import Disk
from lakebed.errors import (
    FormatTooNew,
    InvalidName,
    InvalidSettings,
    LogCorrupted,
    NotReachable,
    ObjectClosed,
    ObjectLocked,
    WrongObject,
)
from lakebed.nameplate import FORMAT, Nameplate
from lakebed.namespace import Namespace
from lakebed.objects import DurableObject
from lakebed.schedule import every, schedules_of
from lakebed.stub import trips


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


@pytest.fixture(autouse=True)
def _fresh():
    Box.events = []
    Box.gate = Box.broken = None
    Scheduled.running = Scheduled.most = 0


@pytest.fixture
def clock():
    return ManualClock()


def descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def happened(what):
    return [name for event, name in Box.events if event == what]


# Names and directories


_REFUSED = ["", "A", "a/b", "..", ".", "-a", "_a", "a" * 64, "a\n", "a b", "é", "a.b", "\x00", None, 7]


@pytest.mark.parametrize("name", _REFUSED)
def test_names_that_are_refused(tmp_path, name):
    """A name that is not `^[a-z0-9][a-z0-9_-]{0,62}$` is InvalidName, which says what is allowed."""
    with pytest.raises(InvalidName, match="a-z, 0-9"):
        Box(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, "tom-2_x"])
async def test_names_that_are_taken(tmp_path, name):
    """An object lies in the directory of its name."""
    async with Box(name, root=tmp_path) as box:
        assert box.directory == tmp_path / name
        assert box.directory.is_dir()


def test_a_link_out_of_the_root_is_refused(tmp_path):
    """The directory's real path must be inside the root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "tom").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidName, match="leads elsewhere"):
        Box("tom", root=tmp_path / "root")


async def test_the_root_itself_may_be_a_link(tmp_path):
    """An operator may put the root wherever the disk is."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    async with Box("tom", root=tmp_path / "root"):
        assert (tmp_path / "disk" / "tom").is_dir()


# Opening and closing


async def test_open_and_close_are_idempotent_and_reopen(tmp_path):
    """Opening twice opens once, closing twice closes once; what was kept is there again."""
    box = Box("tom", root=tmp_path)
    assert await box.open() is await box.open() is box
    assert await box.add(5) == 5
    await box.close()
    await box.close()
    await box.open()
    assert box.get() == 5
    await box.close()
    assert happened("open") == happened("close") == ["tom", "tom"]


async def test_concurrent_opens_and_closes(tmp_path):
    """Any mix of concurrent opens and closes: never two at once, each state reached."""
    box = Box("tom", root=tmp_path)
    await asyncio.gather(*(box.open() for _ in range(10)))
    assert happened("open") == ["tom"]
    await asyncio.gather(*(box.close() if n % 2 else box.open() for n in range(11)), box.close())
    assert len(happened("open")) == len(happened("close"))
    assert not box.is_open


async def test_use_before_open_and_after_close(tmp_path):
    """A call on a closed object is ObjectClosed."""
    box = Box("tom", root=tmp_path)
    with pytest.raises(ObjectClosed, match="open"):
        box.get()
    async with box:
        assert box.is_open
        assert box.get() == 0
    with pytest.raises(ObjectClosed):
        await box.add(1)


async def test_a_failed_open_closes_what_was_half_open(tmp_path):
    """Whatever `_open` raises is raised, after `_close` ran and the directory was given up."""
    Box.broken = OSError("no disk")
    box = Box("tom", root=tmp_path)
    with pytest.raises(OSError, match="no disk"):
        await box.open()
    assert Box.events == [("open", "tom"), ("close", "tom")]
    Box.broken = None
    async with Box("tom", root=tmp_path) as other:
        assert other.get() == 0


async def test_a_cancelled_open_closes_what_was_half_open(tmp_path):
    """A cancelled open leaves the object closed and the directory free; another opener is not harmed."""
    Box.gate = asyncio.Event()
    box = Box("tom", root=tmp_path)
    first = asyncio.ensure_future(box.open())
    while not happened("open"):
        await asyncio.sleep(0)
    second = asyncio.ensure_future(box.open())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    Box.gate.set()
    assert (await second).is_open
    await box.close()
    assert [event for event, _ in Box.events] == ["open", "close", "open", "close"]


async def test_a_cancelled_close_finishes(tmp_path):
    """A cancelled close raises the cancellation when the object is closed, not before."""
    started, go = asyncio.Event(), asyncio.Event()

    class Slow(Box):
        async def _close(self):
            started.set()
            await go.wait()
            await super()._close()

    slow = await Slow("tom", root=tmp_path).open()
    closing = asyncio.ensure_future(slow.close())
    await started.wait()
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert happened("close") == ["tom"]
    async with Box("tom", root=tmp_path):
        pass


async def test_a_failing_close_still_gives_the_directory_up(tmp_path):
    """What `_close` raises is raised once, and the next owner can open."""

    class Bad(Box):
        async def _close(self):
            raise OSError("stuck")

    bad = await Bad("tom", root=tmp_path).open()
    with pytest.raises(OSError, match="stuck"):
        await bad.close()
    await bad.close()
    async with Box("tom", root=tmp_path):
        pass


async def test_an_object_left_open_warns(tmp_path):
    """A leak is told: ResourceWarning names the object."""
    kept = [await Box("tom", root=tmp_path).open()]
    with pytest.warns(ResourceWarning, match="'tom'"):
        kept.clear()


def test_unknown_settings_are_refused(tmp_path):
    """A misspelt setting is told when the object is made."""
    with pytest.raises(InvalidSettings):
        Box("tom", root=tmp_path, idel_s=3)


async def test_nothing_is_left_after_close(tmp_path):
    """No thread and no descriptor outlives close()."""
    before = descriptors(), threading.active_count()
    async with Box("tom", root=tmp_path):
        pass
    assert (descriptors(), threading.active_count()) == before


# One owner


async def test_one_owner_in_this_process(tmp_path):
    """Promise 8: a second opening of the directory is ObjectLocked with the owner's pid."""
    async with Box("tom", root=tmp_path) as box:
        with pytest.raises(ObjectLocked, match=f"this process .{os.getpid()}") as caught:
            await Box("tom", root=tmp_path).open()
        assert caught.value.pid == os.getpid()
        assert await box.add(1) == 1


_HOLDS = """
import asyncio, sys
from lakebed.objects import DurableObject
class Box(DurableObject): pass
async def main():
    async with Box("tom", root=sys.argv[1]):
        print("open", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


async def test_one_owner_between_processes(tmp_path):
    """Promise 8: the second process is told the first one's pid; when that is killed, the lock is free."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(ObjectLocked) as caught:
            await Box("tom", root=tmp_path).open()
        assert caught.value.pid == owner.pid
        assert str(owner.pid) in str(caught.value)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (tmp_path / "tom" / "lock").exists()
    async with Box("tom", root=tmp_path) as box:
        assert box.is_open


async def test_a_lock_file_of_a_dead_process_is_no_obstacle(tmp_path):
    """What is written in the lock file does not matter, only who holds the lock."""
    (tmp_path / "tom").mkdir()
    (tmp_path / "tom" / "lock").write_text("999999999\nrubbish")
    async with Box("tom", root=tmp_path):
        assert int((tmp_path / "tom" / "lock").read_text().split()[0]) == os.getpid()


async def test_the_lock_is_not_inherited(tmp_path):
    """A program started meanwhile does not keep the directory locked, nor does a forked child."""
    box = await Box("tom", root=tmp_path).open()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of forking beside threads
            forked = os.fork()
        if forked == 0:
            os._exit(0 if not box.is_open else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
        assert box.is_open
        with pytest.raises(ObjectLocked):
            await Box("tom", root=tmp_path).open()
        await box.close()
        async with Box("tom", root=tmp_path):
            pass
        child.communicate(b"\n")


# The nameplate


async def test_the_directory_says_its_format_and_class(tmp_path):
    """object.json is there after the first open."""
    async with Scheduled("tom", root=tmp_path):
        pass
    assert json.loads((tmp_path / "tom" / "object.json").read_bytes()) == {
        "format": FORMAT,
        "class": "Scheduled",
        "bases": ["Box"],
    }


async def test_a_newer_format_is_refused_untouched(tmp_path):
    """A directory of a newer Lakebed is FormatTooNew, and nothing in it changes."""
    (tmp_path / "tom").mkdir()
    plate = tmp_path / "tom" / "object.json"
    plate.write_text('{"format": 2, "shape": "round"}')
    with pytest.raises(FormatTooNew, match="Upgrade"):
        await Box("tom", root=tmp_path).open()
    assert [path.name for path in (tmp_path / "tom").iterdir()] == ["object.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "x"}', '{"format": 1}'])
async def test_a_spoilt_nameplate_is_told(tmp_path, content):
    """A nameplate that does not read back is an error, not a new object."""
    (tmp_path / "tom").mkdir()
    (tmp_path / "tom" / "object.json").write_text(content)
    with pytest.raises(LogCorrupted):
        await Box("tom", root=tmp_path).open()


async def test_an_unrelated_class_is_refused(tmp_path):
    """A directory is opened by the class that made it, its bases, subclasses and siblings; not by any other."""

    class Other(DurableObject):
        pass

    async with Scheduled("tom", root=tmp_path):
        pass
    with pytest.raises(WrongObject, match="Scheduled"):
        await Other("tom", root=tmp_path).open()
    for kind, recorded in ((Box, "Scheduled"), (Quiet, "Quiet"), (Scheduled, "Scheduled")):
        async with kind("tom", root=tmp_path):
            assert json.loads((tmp_path / "tom" / "object.json").read_bytes())["class"] == recorded


async def test_the_nameplate_is_written_durably(tmp_path):
    """Temporary file, sync, rename, sync of both directories; a crash at any step leaves none or a whole one."""
    steps = []

    class Recording(Disk):
        def sync(self, descriptor):
            steps.append("sync")
            super().sync(descriptor)

        def replace(self, source, target):
            steps.append(f"replace {target.name}")
            super().replace(source, target)

        def sync_directory(self, path):
            steps.append(f"sync {path.name}")
            super().sync_directory(path)

    class Dying(Disk):
        def __init__(self, step):
            self.step = step

        def __getattribute__(self, name):
            if name == object.__getattribute__(self, "step"):
                raise KeyboardInterrupt(name)
            return super().__getattribute__(name)

    async with Box("tom", root=tmp_path, disk=Recording()):
        pass
    assert steps == ["sync", "replace object.json", "sync tom", f"sync {tmp_path.name}"]
    for step in ("create", "write", "sync", "close", "replace", "sync_directory"):
        (tmp_path / step).mkdir()
        with pytest.raises(KeyboardInterrupt):
            Nameplate(kind="Box").hang(tmp_path / step, Dying(step))
        async with Box(step, root=tmp_path):
            assert json.loads((tmp_path / step / "object.json").read_bytes())["class"] == "Box"


# The namespace


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
    """Each call that waited for the object gets what opening raised; the next call tries again."""
    async with Namespace(tmp_path, Box) as ns:
        Box.broken = OSError("no disk")
        stub = ns.get("tom")
        outcomes = await asyncio.gather(stub.add(1), stub.add(2), ns.get("tom").get(), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["no disk"] * 3
        Box.broken = None
        assert await stub.add(1) == 1


async def test_a_locked_object_is_told_to_the_caller(tmp_path):
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
    """An object is opened as the class that it was last opened as; a class that is not known is told."""
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
    """Calls that nobody awaited are carried out before close() returns; then every object is closed."""
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


async def test_a_failing_close_of_an_idle_object_is_told(tmp_path, clock):
    """What closing raises when nobody waits goes to on_error and check()."""

    class Bad(Box):
        async def _close(self):
            raise OSError("stuck")

    told = []
    async with Namespace(tmp_path, Bad, clock=clock, on_error=told.append) as ns:
        await ns.get("tom").add(1)
        clock.advance(1000)
        assert await ns.sleep_idle() == ["tom"]
        await asyncio.sleep(0)
        assert ns.check() == ["OSError: stuck"]
        assert [str(error) for error in told] == ["stuck"]


async def test_the_timer_puts_to_sleep(tmp_path):
    """With the real clock nobody has to ask: the namespace's one timer closes what is idle."""
    async with Namespace(tmp_path, Box, idle_s=0.01) as ns:
        await ns.get("tom").add(1)
        async with asyncio.timeout(10):
            while not happened("close"):
                await asyncio.sleep(0.01)
        assert ns.awake() == []


# Schedules of sleeping objects


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
        await asyncio.gather(*(ns.get(name).add(1) for name in ("a", "b", "c")))
        clock.advance(1800)
        await ns.sleep_idle()
        clock.advance(1800)
        (tmp_path / "a" / "object.json").write_text("{")
        (tmp_path / "b" / "number").write_text("no number")
        await ns.wake_due()
        assert happened("hourly") == ["c"]
        assert any("nameplate" in problem for problem in ns.check())
        assert any("no number" in problem for problem in ns.check())
    async with Scheduled("c", root=tmp_path, clock=clock):
        clock.advance(3600)
        ns = Namespace(tmp_path, Scheduled, clock=clock)
        (tmp_path / "b" / "number").write_text("1")
        await ns.wake_due()
        assert not any("ObjectLocked" in problem for problem in ns.check())
        await ns.close()


async def test_schedules_of_an_unknown_class_are_told(tmp_path, clock):
    """An object whose class is not imported cannot run its schedules: check() says so."""
    async with Namespace(tmp_path, clock=clock) as ns:
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "object.json").write_text('{"format": 1, "class": "Gone"}')
        (tmp_path / "odd" / "lock").write_text("")
        assert await ns.wake_due() == []
        assert "its class Gone is not known" in ns.check()[0]


async def test_the_timer_wakes_for_schedules(tmp_path):
    """With the real clock nobody has to ask: a sleeping object's schedule fires."""

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


# Default namespaces


async def test_for_gives_stubs_of_one_namespace(tmp_path):
    """`Class.for_(name)` shares one namespace for each root; closing it frees its objects."""
    assert await Box.for_("tom", tmp_path).add(1) == 1
    assert await Scheduled.for_("sam", tmp_path).add(1) == 1
    ns = Namespace.default(tmp_path)
    assert ns is Namespace.default(str(tmp_path))
    assert ns.awake() == ["sam", "tom"]
    await ns.close()
    async with Box("tom", root=tmp_path) as box:
        assert box.get() == 1


def test_for_needs_a_loop(tmp_path):
    """A stub of a default namespace belongs to a running loop."""
    with pytest.raises(RuntimeError):
        Box.for_("tom", tmp_path)


def test_default_namespaces_close_with_their_loop(tmp_path, monkeypatch):
    """When `asyncio.run` ends, calls that were made are carried out, also those not yet sent, and objects close."""
    monkeypatch.setenv("LAKEBED_ROOT", str(tmp_path))

    async def main(late):
        if late:
            await Box.for_("tom").get()
        for _ in range(10):
            Box.for_("tom").add(1)

    for late in (False, True):
        asyncio.run(main(late))
    assert (tmp_path / "tom" / "number").read_text() == "20"
    assert Namespace._defaults == {}
