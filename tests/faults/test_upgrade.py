"""Objects that earlier versions wrote are opened for ever; `tests/data/make_object.py` made them."""

import importlib.util
import json
import sys
import tarfile
from pathlib import Path

import pytest

from lakebed import ManualClock
from lakebed.clock import from_us

DATA = Path(__file__).parents[1] / "data"
OLD = sorted(path.stem for path in DATA.glob("object-*.json"))


@pytest.fixture(scope="module")
def maker():
    """The program that wrote the files: it knows what was stored, and asks the same today."""
    spec = importlib.util.spec_from_file_location("make_object", DATA / "make_object.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name, place):
    """Unpack an old object; what it said about itself."""
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", OLD)
async def test_53_an_old_object_answers_as_it_did(maker, place, name):
    """A directory of every format that ever was opens, and each answer is the one that it gave when it was written."""
    said = put(name, place)
    for _ in range(2):  # also once it has been migrated
        async with maker.opened(ManualClock(from_us(said["now_us"]))) as shop:
            assert await maker.asked(shop) == said["answers"]
            assert await shop.check() == []


@pytest.mark.parametrize("name", OLD)
async def test_53_an_old_object_works_on(maker, place, name):
    """It knows its message ids, takes new events, archives, merges, expires and collects, and loses nothing."""
    said = put(name, place)
    clock = ManualClock(from_us(said["now_us"]))
    count = len(said["answers"]["events"])
    async with maker.opened(clock) as shop:
        assert (await shop.track("again", message_id=said["answers"]["events"][-1][1])).status == "duplicate"
        await maker.some(shop, clock, 100, 110)
        await shop.archive()
        clock.advance(5000)
        assert (await shop.rollup()).pruned + shop._components.pipeline.start_seq > 0
        assert (await shop.compact()).commits > 0
        await shop.untag("audit")
        await shop.expire()
        assert (await shop.collect_garbage()).paths
        assert shop._components.pipeline.start_seq == count + 10
        found = await maker.asked_events(shop)
        assert found[:count] == said["answers"]["events"]
        assert len(found) == count + 10
        assert await shop.check() == []


@pytest.mark.parametrize("name", OLD)
async def test_53_rollups_of_an_old_object_can_be_computed_anew(maker, place, name):
    """Without its storage.db, all that was derived comes back from its log and archive."""
    said = put(name, place)
    for path in (place / "shop").glob("storage.db*"):
        path.unlink()
    async with maker.opened(ManualClock(from_us(said["now_us"]))) as shop:
        assert await maker.asked(shop) == said["answers"]
        assert await shop.check() == []


def test_53_todays_formats_are_among_them(maker):
    """Whoever changes a format also keeps an object that has it: run tests/data/make_object.py."""
    formats = [json.loads((DATA / f"{name}.json").read_text("utf-8"))["formats"] for name in OLD]
    assert maker.FORMATS in formats


def test_53_the_files_say_nothing_of_the_machine_that_made_them():
    """They hold no absolute path and no owner, so that they open anywhere."""
    for name in OLD:
        with tarfile.open(DATA / f"{name}.tar.gz") as archive:
            entries = archive.getmembers()
            content = [archive.extractfile(entry).read() for entry in entries if entry.isfile()]
        assert {(entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, "")}
        assert not any(b"/tmp/" in data or b"/home/" in data for data in content)
