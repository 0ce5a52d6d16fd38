"""A directory has one owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings

import pytest

from lakebed.clock import ManualClock
from lakebed.errors import (
    ObjectLocked,
)
from tests.objects.small_objects import Box, reset


@pytest.fixture(autouse=True)
def _fresh():
    reset()


@pytest.fixture
def clock():
    return ManualClock()


async def test_one_owner_in_this_process(tmp_path):
    """Promise 8: a second opening of the directory is ObjectLocked with the owner's pid."""
    async with Box("tom", root=tmp_path) as box:
        with pytest.raises(ObjectLocked, match=f"this process .{os.getpid()}") as caught:
            await Box("tom", root=tmp_path).open()
        assert caught.value.pid == os.getpid()
        assert await box.add(1) == 1


_HOLDS = """
import asyncio, sys
from lakebed.objects.durable_object import DurableObject
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


async def test_l1_10_a_deleted_lock_file_makes_no_second_writer(tmp_path):
    """Operators delete lock files: the directory stays its owner's, between processes and within one."""
    async with Box("tom", root=tmp_path) as box:
        (tmp_path / "tom" / "lock").unlink()
        with pytest.raises(ObjectLocked, match="'tom' is open in another process"):
            await Box("tom", root=tmp_path).open()
        with subprocess.Popen(
            [sys.executable, "-c", _HOLDS, str(tmp_path)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as second:
            assert "ObjectLocked" in second.communicate()[1]
        assert await box.add(1) == 1
        (tmp_path / "tom" / "lock").unlink()
    assert (tmp_path / "tom" / "lock").exists(), "when it was released is what schedules are made up from"
    async with Box("tom", root=tmp_path):
        pass


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
