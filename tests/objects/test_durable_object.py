"""DurableObject: names, opening, closing, and the stubs of default namespaces."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lakebed.clock import ManualClock
from lakebed.errors import (
    InvalidName,
    InvalidSettings,
    ObjectClosed,
)
from lakebed.objects.namespace import Namespace
from tests.objects.small_objects import Box, Scheduled, descriptors, happened, reset


@pytest.fixture(autouse=True)
def _fresh():
    reset()


@pytest.fixture
def clock():
    return ManualClock()


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
    with pytest.raises(InvalidName, match="is a link to another place"):
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
    """A leak is a ResourceWarning that names the object."""
    kept = [await Box("tom", root=tmp_path).open()]
    with pytest.warns(ResourceWarning, match="'tom'"):
        kept.clear()


def test_unknown_settings_are_refused(tmp_path):
    """A misspelt setting is an error when the object is made."""
    with pytest.raises(InvalidSettings):
        Box("tom", root=tmp_path, idel_s=3)


async def test_nothing_is_left_after_close(tmp_path):
    """No thread and no descriptor outlives close()."""
    before = descriptors(), threading.active_count()
    async with Box("tom", root=tmp_path):
        pass
    assert (descriptors(), threading.active_count()) == before


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
