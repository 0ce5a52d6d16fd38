"""Every version opens the objects of all earlier versions. `tests/data/make_object.py` made them.

`make_full_object.py` made those with a list of questions: they have state of every kind.
"""

import importlib.util
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from lakebed import ManualClock
from lakebed.clock import from_us

DATA = Path(__file__).parents[1] / "data"
ALL = sorted(path.stem for path in DATA.glob("object-*.json"))
FULL = [name for name in ALL if "questions" in json.loads((DATA / f"{name}.json").read_text("utf-8"))]
OLD = [name for name in ALL if name not in FULL]
# Whether cohorts, price books, invoices, quotas and mappings are rows of `events`, and counted, as in old versions.
DOCUMENTS_ARE_EVENTS = False
# Fields that newer versions added to answers.
NEW_FIELDS = {"stats": {"events"}, "pulse": {"events"}}
# Run once: each starts its own process.
SANDBOXED = {"analytics_engine", "query_untrusted", "template"}
# Lost with storage.db: dead letters, and the schedule's last runs.
KEPT_IN_STORAGE = {"dead_letters", "stats", "vitals"}


def module(name):
    """Import a file of tests/data, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    sys.modules[spec.name] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def maker():
    """The program that wrote the files: it runs the same queries today."""
    return module("make_object")


@pytest.fixture(scope="module")
def full():
    """The class of an object with state of every kind, and its answers as JSON."""
    return module("full_object")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name, place):
    """Unpack an old object; return its record."""
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", OLD)
async def test_53_an_old_object_answers_as_it_did(maker, place, name):
    """A directory of every earlier format opens, and each answer equals the recorded one."""
    record = put(name, place)
    for _ in range(2):  # the second time after its migration
        async with maker.opened(ManualClock(from_us(record["now_us"]))) as shop:
            assert await maker.asked(shop) == record["answers"]
            assert await shop.check() == []


@pytest.mark.parametrize("name", OLD)
async def test_53_an_old_object_takes_new_events_and_jobs(maker, place, name):
    """It knows its message ids, stores new events, archives, compacts, expires and collects, and loses nothing."""
    record = put(name, place)
    clock = ManualClock(from_us(record["now_us"]))
    count = len(record["answers"]["events"])
    async with maker.opened(clock) as shop:
        assert (await shop.track("again", message_id=record["answers"]["events"][-1][1])).status == "duplicate"
        await maker.some(shop, clock, 100, 110)
        await shop.archive()
        clock.advance(5000)
        assert (await shop.rollup()).pruned + shop._components.pipeline.start_seq > 0
        assert (await shop.compact()).commits > 0
        await shop.untag("audit")
        await shop.expire()
        assert (await shop.collect_garbage()).paths
        assert shop._components.pipeline.start_seq == count + 10
        events = await maker.asked_events(shop)
        assert events[:count] == record["answers"]["events"]
        assert len(events) == count + 10
        assert await shop.check() == []


@pytest.mark.parametrize("name", OLD)
async def test_53_rollups_of_an_old_object_can_be_recomputed(maker, place, name):
    """Without its storage.db, all derived state is computed again from log and archive."""
    record = put(name, place)
    for path in (place / "shop").glob("storage.db*"):
        path.unlink()
    async with maker.opened(ManualClock(from_us(record["now_us"]))) as shop:
        assert await maker.asked(shop) == record["answers"]
        assert await shop.check() == []


def expected_of(question):
    """The recorded answer, without the operator's documents if they are no longer events."""
    if DOCUMENTS_ARE_EVENTS or "without_documents" not in question:
        return question["answer"]
    return question["answer"] | {"rows": question["without_documents"]}


async def changed(full, store, questions):
    """The questions that the store answers differently from the record."""
    differences = []
    for question in questions:
        expected = expected_of(question)
        today = json.loads(json.dumps(await full.answer(store, question["verb"], question["arguments"])))
        for field in NEW_FIELDS.get(question["verb"], ()):
            del today[field]
        if today != expected:
            differences.append((question["verb"], question["arguments"], today, expected))
    return differences


MOST = pytest.mark.parametrize("most", [6, pytest.param(100, marks=pytest.mark.slow)])


def sampled(questions, most):
    """Not more than so many questions of each verb, from its first to its last, in order. SQL is asked whole."""
    counts, passed, kept = Counter(question["verb"] for question in questions), Counter(), []
    for question in questions:
        verb = question["verb"]
        if verb == "query" or passed[verb] % -(-counts[verb] // most) == 0:
            kept.append(question)
        passed[verb] += 1
    return kept


@MOST
@pytest.mark.parametrize("name", FULL)
async def test_53_every_reading_verb_has_the_same_answer(full, place, name, most):
    """Each verb that reads, over state of every kind, in each tier and at several instants; check() among them."""
    record = put(name, place)
    async with full.opened(ManualClock(from_us(record["now_us"]))) as store:
        assert await changed(full, store, sampled(record["questions"], most)) == []
    # Once it has been migrated, one question of each verb.
    of_verbs = {question["verb"]: question for question in record["questions"] if question["verb"] not in SANDBOXED}
    async with full.opened(ManualClock(from_us(record["now_us"]))) as store:
        assert await changed(full, store, of_verbs.values()) == []


@MOST
@pytest.mark.parametrize("name", FULL)
async def test_53_as_of_answers_of_an_old_object_do_not_change(full, place, name, most):
    """New events, jobs that are due, a replay, a new invoice, archiving and compaction leave the past as it was."""
    record = put(name, place)
    clock = ManualClock(from_us(record["now_us"]))
    async with full.opened(clock) as store:
        assert (await store.track("again", message_id="Bought-20-2")).status == "duplicate"
        clock.advance(28 * 86_400)
        runs = await store.run_due()
        assert {run.job.split()[0] for run in runs} == {"greet", "rollup", "settle", "tidy"}
        assert [run.error for run in runs] == [None] * 4
        letters = {letter.message_id: letter.id for letter in await store.dead_letters()}
        (replayed,) = await store.replay([letters["no-name"]], edit={"event": "Named"})
        assert replayed.status == "stored"
        invoice = await store.invoice("acme", "2026-02", issue=True)
        assert [adjustment.period for adjustment in invoice.adjustments] == ["2026-01"] * 2
        assert await store.invoices("acme") == [await store.invoice("acme", "2026-01"), invoice]
        await store.archive()
        await store.compact()
        assert store.stats().watermark == store.stats().next_seq
        for question in sampled(record["questions"], most):
            if "as_of" in question["arguments"]:
                expected = expected_of(question)
                today = json.loads(json.dumps(await full.answer(store, question["verb"], question["arguments"])))
                if isinstance(expected, dict) and "tiers" in expected:  # all events are in the archive now
                    today["tiers"] = expected["tiers"]
                assert (question["arguments"], today) == (question["arguments"], expected)
        assert await store.check() == []


@MOST
@pytest.mark.parametrize("name", FULL)
async def test_53_only_dead_letters_and_runs_are_lost_with_storage(full, place, name, most):
    """Rollups, people, documents and totals come back from log and archive."""
    record = put(name, place)
    for path in (place / record["object"]).glob("storage.db*"):
        path.unlink()
    left_out = KEPT_IN_STORAGE | SANDBOXED
    questions = [question for question in sampled(record["questions"], most) if question["verb"] not in left_out]
    async with full.opened(ManualClock(from_us(record["now_us"]))) as store:
        assert await changed(full, store, questions) == []


def test_53_the_current_formats_have_an_old_object(maker):
    """A change of a format needs an object in the new one: run tests/data/make_object.py."""
    formats = [json.loads((DATA / f"{name}.json").read_text("utf-8"))["formats"] for name in OLD]
    assert maker.FORMATS in formats


def test_53_old_objects_hold_no_path_and_no_owner():
    """They hold no absolute path and no owner, so that they open anywhere."""
    for name in ALL:
        with tarfile.open(DATA / f"{name}.tar.gz") as archive:
            entries = archive.getmembers()
            content = [archive.extractfile(entry).read() for entry in entries if entry.isfile()]
        assert {(entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, "")}
        assert not any(b"/tmp/" in data or b"/home/" in data for data in content)
