"""The manifest in an object's directory."""

from __future__ import annotations

import json

import pytest

from lakebed.clock import ManualClock
from lakebed.disk import Disk
from lakebed.errors import (
    FormatTooNew,
    LogCorrupted,
    WrongObject,
)
from lakebed.objects.durable_object import DurableObject
from lakebed.objects.manifest import FORMAT, Manifest
from tests.objects.small_objects import Box, Quiet, Scheduled, reset


@pytest.fixture(autouse=True)
def _fresh():
    reset()


@pytest.fixture
def clock():
    return ManualClock()


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
async def test_a_damaged_manifest_is_an_error(tmp_path, content):
    """A manifest that cannot be decoded is an error, not a new object."""
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


async def test_the_manifest_is_written_durably(tmp_path):
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
            Manifest(kind="Box").write(tmp_path / step, Dying(step))
        async with Box(step, root=tmp_path):
            assert json.loads((tmp_path / step / "object.json").read_bytes())["class"] == "Box"
