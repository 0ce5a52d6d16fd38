"""Documents of the operator are in the log, and in no answer about events (docs/decisions/0016)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import tarfile
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from lakebed import ManualClock, StorageUnavailable
from lakebed.cli.app import run
from lakebed.clock import from_us
from lakebed.events.event import OPERATOR
from tests.definitions.twins import DATA, STAGES, START, answers, events, grow, opened

pytestmark = pytest.mark.integration  # two objects in each state, asked through every surface

COUNT = "SELECT count(*) FROM events"
EVENTS = [13, 14] * 4  # of each stage: the odd ones take their merge back


def put(directory):
    """Unpack what the last Lakebed wrote that counted documents; the clock of then."""
    with tarfile.open(DATA / "documents.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return ManualClock(from_us(json.loads((DATA / "documents.json").read_text("utf-8"))["now_us"]))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty directory, which is the current one."""

    def enter(name):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)

    return enter


async def twins(place, to, moments=(), **options):
    """The answers of an object with documents, and of one without."""
    results = []
    for documents in (True, False):
        place(str(documents))
        clock = ManualClock(START)
        async with opened(clock) as shop:
            await grow(shop, clock, documents=documents, to=to)
            results.append(await answers(shop, moments, **options))
            assert await shop.check() == []
    return results


async def test_every_surface_answers_as_if_there_were_no_documents(place):
    """SQL, rollups, metrics, reports, templates, stats, the page, Analytics Engine; now, earlier, and of snapshots."""
    moment = START + timedelta(seconds=4500)  # when some of the events were archived
    with_documents, without = await twins(place, STAGES[-1], [moment], untrusted=True)
    assert with_documents == without
    assert sum(map(bool, without.values())) > 80  # most of them answer something


async def test_counts_are_exact_in_each_state_of_an_object(place):
    """The number of events, from metadata or not, is that of an object without documents, wherever the rows lie."""
    place("counted")
    clock = ManualClock(START)
    async with opened(clock) as shop:
        seen = []

        async def count(stage):
            seen.append(stage)
            known = sum(EVENTS[: len(seen)])
            assert (await shop.query(COUNT)).scalar() == known == len(await shop.query("SELECT seq FROM events")), stage
            assert (await shop.query_untrusted(COUNT)).scalar() == known, stage
            assert shop.stats().events == known < shop.stats().next_seq, stage

        await grow(shop, clock, documents=True, at_stage=count)
        assert seen == list(STAGES)


async def test_counts_are_exact_after_an_erasure(place):
    """Rows that were erased from the archive, events or documents, are counted no more, and no document is."""
    place("erased")
    clock = ManualClock(START)
    async with opened(clock) as shop:
        await grow(shop, clock, documents=True, to="archived")
        await shop._components.archive.erase("event", ["order"])
        assert (await shop.query(COUNT)).scalar() == len(await shop.query("SELECT seq FROM events")) == 40 - 15
        await shop._components.archive.erase("source", [OPERATOR])
        assert (await shop.query(COUNT)).scalar() == len(await shop.query("SELECT seq FROM events")) == 40 - 15 - 4


async def test_a_file_without_documents_is_not_read_to_count(place):
    """Counting opens no file of an archive from which nothing was erased, documents or not."""
    place("files")
    clock = ManualClock(START)
    async with opened(clock) as shop:
        await grow(shop, clock, documents=True, to="archived")
        files = (await shop.query(COUNT)).files
        assert files
        for file in files:
            shop.directory.joinpath(file).unlink()
        assert (await shop.query(COUNT)).scalar() == 40


async def test_an_object_of_documents_alone_is_empty(place):
    """Before the first event nothing was stored, for SQL as for the page."""
    place("documents")
    async with opened(ManualClock(START)) as shop:
        await shop.save_cohort("buyers", {"did": "order"})
        await shop.save_quota("acme", "calls", 100)
        for _ in range(2):
            stats, pulse = shop.stats(), await shop.pulse()
            assert (stats.received, stats.stored, stats.last_minute, stats.events, stats.next_seq) == (0, 0, 0, 0, 2)
            assert (pulse.events, list(pulse.newest), sum(pulse.minutes)) == (0, [], 0)
            assert (await shop.query(COUNT)).scalar() == 0
            assert len(await shop.query("SELECT * FROM hourly_events")) == len(await shop.query("FROM people")) == 0
            assert await shop.check() == []
            assert [cohort.name for cohort in await shop.cohorts()] == ["buyers"]
            await shop.archive()
            await shop.close()
            await shop.open()


async def test_the_newest_events_are_twelve(place):
    """The page's list reaches back past documents, of which there may be many."""
    place("newest")
    async with opened(ManualClock(START)) as shop:
        await shop.batch([{"event": f"e{number}"} for number in range(20)])
        for number in range(30):
            await shop.save_cohort("buyers", {"did": f"e{number}"})
        await shop.track("last")
        expected = ["last", *(f"e{number}" for number in range(19, 8, -1))]
        assert [event.event for event in (await shop.pulse()).newest] == expected
        await shop.close()
        await shop.open()
        assert [event.event for event in (await shop.pulse()).newest] == expected


async def test_received_is_stored_duplicate_and_rejected(place):
    """Documents are none of the four; what fails and what waits is counted as before."""
    place("received")
    async with opened(ManualClock(START)) as shop:
        saving = asyncio.ensure_future(shop.save_cohort("buyers", {"did": "order"}))
        await asyncio.gather(shop.batch([{"event": "a", "messageId": "1"}, {"event": ""}, {}]), saving)
        await shop.track("a", message_id="1")
        stats = shop.stats()
        assert (stats.received, stats.stored, stats.duplicate, stats.rejected) == (4, 1, 1, 2)
        assert (shop.tally().stored, shop.tally().duplicate, shop.tally().rejected) == (1, 1, 2)
        assert await shop.check() == []


@pytest.mark.parametrize("source", [OPERATOR, f" {OPERATOR}", OPERATOR.upper()])
async def test_no_client_writes_a_document(place, source):
    """A client may not use the reserved source; a source that only looks like it is allowed, and its events count."""
    place("forged")
    async with opened(ManualClock(START)) as shop:
        forged = {"event": "x", "source": source, "properties": {"definition": "cohort", "name": "c", "body": {}}}
        receipts = await shop.batch([forged, {"event": "y"}])
        receipts += await shop.batch(json.dumps([forged, {"type": "page", "source": source}]).encode())
        refused = source == OPERATOR
        assert [receipt.status for receipt in receipts] == ["rejected" if refused else "stored", "stored"] + [
            "rejected" if refused else "stored"
        ] * 2
        if refused:
            receipts += await shop.batch([{"event": "x"}], source=source)
            assert (receipts[-1].status, receipts[-1].reason) == ("rejected", f"source {OPERATOR} is reserved")
        assert (await shop.query(COUNT)).scalar() == sum(receipt.status == "stored" for receipt in receipts)
        assert await shop.cohorts() == []


async def test_an_export_has_events_alone(place, tmp_path):
    """NDJSON of an object with documents is that of one without."""
    lines = []
    for documents in (True, False):
        place(f"exported {documents}")
        clock = ManualClock(START)
        async with opened(clock) as shop:
            await grow(shop, clock, documents=documents, to="archived and tail")
        file = tmp_path / f"{documents}.ndjson"
        root = str(tmp_path / f"exported {documents}")
        assert await asyncio.to_thread(run, ["export", str(file), "--root", root, "--object", "shop"]) == 0
        read = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
        differing = {"seq", "messageId", "receivedAt"}
        lines.append([{name: line[name] for name in line.keys() - differing} for line in read])
    assert lines[0] == lines[1]
    assert len(lines[1]) == sum(EVENTS[:4])


@pytest.mark.parametrize("lost", [False, True])
async def test_an_object_that_counted_documents_counts_them_no_more(place, answers_without_documents, lost):
    """An object that an older Lakebed wrote answers like one without documents; its documents and merges are there.

    It does so, too, when it is opened again, and without its storage.db.
    """
    place("old")
    clock = put(".")
    if lost:
        for path in Path("shop").glob("storage.db*"):
            path.unlink()
    async with opened(clock) as shop:
        first = await answers(shop)
        assert await shop.check() == []
    async with opened(clock) as shop:
        assert (await shop._components.history.documents()).start == 0
        assert await shop.check() == []
        assert [dataset.version for dataset in await shop.datasets()] == [8]
        assert len(await shop.invoices()) == 1
        assert await shop.cohorts() != []
        assert (await shop.person("shade-2")).person_id == "ghost-2"
        assert await shop.person("shade-3") is None
        again = first if lost else await answers(shop)  # a rebuilt storage.db is read once
    assert first == again == await answers_without_documents()


@pytest.fixture(scope="module")
def answers_without_documents(tmp_path_factory):
    """Asks an object with the same events that never had documents, at the same time, once for both tests."""
    known = {}

    async def ask():
        if not known:
            directory = tmp_path_factory.mktemp("new")
            now = put(directory).now_us()
            clock = ManualClock(START)
            with contextlib.chdir(directory):
                shutil.rmtree("shop")
                async with opened(clock) as shop:
                    await grow(shop, clock, documents=False, to="pruned")
                    await shop.rollup()
                    clock.advance(60)
                    await events(shop, clock, 20, documents=False)
                    await shop.close()
                    clock.advance((now - clock.now_us()) / 1_000_000)
                    await shop.open()
                    known.update(await answers(shop))
        return known

    return ask


async def test_state_of_an_older_lakebed_is_kept_where_it_is_right(place):
    """Rollups are computed anew only for an object that has documents: others would pay for nothing."""
    place("kept")
    clock = ManualClock(START)
    async with opened(clock) as shop:
        await grow(shop, clock, documents=False, to="archived")
        await shop.rollup()
        older = {fold.name: fold.older_fingerprint for fold in shop._components.rollups._folds.values()}
    with sqlite3.connect("shop/storage.db") as storage:
        storage.executemany("UPDATE rollups SET fingerprint = ? WHERE name = ?", [(f, n) for n, f in older.items()])
    async with opened(clock) as shop:
        assert (await shop.rollup()).events == 0
        assert (await shop.query("SELECT sum(events) FROM daily_metrics")).scalar() == 40
        stored = await shop._components.storage.stored_rollups()
        assert {rollup.fingerprint for rollup in stored.values()}.isdisjoint(older.values())


async def test_a_merge_is_an_event_and_a_document_is_none(place):
    """Both have the operator's source. The one is of a type that clients have, and is counted as it was."""
    place("merged")
    async with opened(ManualClock(START)) as shop:
        await shop.merge("a", "b")
        await shop.save_cohort("buyers", {"did": "order"})
        assert [(row.seq, row.type) for row in await shop.query("SELECT seq, type FROM events")] == [(0, "alias")]
        assert (shop.stats().events, shop.stats().stored, shop.stats().received) == (1, 1, 1)


async def test_older_state_changes_in_one_transaction(place):
    """If storage fails on the way, every rollup keeps its older state, and the next question tries again."""
    place("failing")
    clock = put(".")
    with sqlite3.connect("shop/storage.db") as storage:
        before = dict(storage.execute("SELECT name, fingerprint FROM rollups"))
        storage.execute(
            "CREATE TRIGGER broken BEFORE DELETE ON rollups WHEN OLD.name = 'sums' "
            "BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    async with opened(clock) as shop:
        with pytest.raises(StorageUnavailable, match="broken"):
            await shop.query("SELECT sum(count) FROM hourly_events")
        assert {
            rollup.name: rollup.fingerprint for rollup in (await shop._components.storage.stored_rollups()).values()
        } == before
        await shop._components.storage.transact(lambda tx: tx.fetch("DROP TRIGGER broken"))
        counted = (await shop.query("SELECT sum(count) FROM hourly_events")).scalar()
        assert counted == (await shop.query(COUNT)).scalar() == shop.stats().events < shop.stats().next_seq
        await shop.rollup()
    async with opened(clock) as shop:  # the positions were saved: nothing is searched again
        assert shop.stats().events == counted == (await shop.query(COUNT)).scalar()
