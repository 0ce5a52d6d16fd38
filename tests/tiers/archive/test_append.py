import asyncio
import threading

import pytest

from lakebed.errors import ArchiveConflict, ArchiveUnavailable
from lakebed.settings import Settings
from tests.tiers.archive.archive_fixtures import START, events, open_archive, seqs, stored

pytestmark = pytest.mark.integration  # a real table


@pytest.fixture
def flaky(tmp_path):
    from tests.tiers.archive.flaky_catalog import FlakyCatalog

    FlakyCatalog.script = []
    FlakyCatalog.meanwhile = None
    catalog = {
        "py-catalog-impl": "tests.tiers.archive.flaky_catalog.FlakyCatalog",
        "uri": f"sqlite:///{tmp_path}/elsewhere.db",
        "warehouse": str(tmp_path / "warehouse"),
    }
    return FlakyCatalog, lambda **settings: open_archive(tmp_path, catalog=catalog, **settings)


LOST = ["applied unknown", "applied socket", "applied conflict"]
REFUSED = ["unknown", "socket"]


@pytest.mark.parametrize("step", LOST)
async def test_lost_answer_of_an_append(flaky, step):
    """A commit that was applied counts once, whatever error the catalog returned, and can be read afterwards."""
    catalog, make = flaky
    archive = make()
    await archive.append(events(0, 4), 0, 4)
    catalog.script = [step]
    assert await archive.append(events(4, 8), 4, 8) is True
    assert await archive.append(events(4, 8), 4, 8) is False
    await archive.append(events(8, 12), 8, 12)
    assert await seqs(archive) == list(range(12))
    assert await archive.check() == []
    await archive.close()


@pytest.mark.parametrize("step", REFUSED)
async def test_append_that_was_not_applied(flaky, step):
    """A commit that failed and is not in the catalog is an error; running it again archives the events once."""
    catalog, make = flaky
    archive = make()
    await archive.append(events(0, 4), 0, 4)
    catalog.script = [step]
    with pytest.raises(ArchiveUnavailable, match="did not accept a commit"):
        await archive.append(events(4, 8), 4, 8)
    assert await archive.watermark() == 4
    assert await archive.append(events(4, 8), 4, 8) is True
    assert await seqs(archive) == list(range(8))
    assert await archive.check() == []
    await archive.close()


@pytest.mark.parametrize("step", LOST)
async def test_lost_answer_of_maintenance(flaky, step):
    """Compaction, erasure, expiry and tags whose answer was lost have happened once, or may be run again."""
    catalog, make = flaky
    archive = make()
    for start in (0, 4):
        await archive.append(events(start, start + 4, at=lambda seq: START + seq), start, start + 4)
    catalog.script = [step]
    assert (await archive.compact()).files_after == 1
    catalog.script = [step]
    assert (await archive.erase("user_id", ["u3"])).rows == 1
    catalog.script = [step]
    try:
        await archive.expire()
    except ArchiveUnavailable:
        await archive.expire()
    assert len(await archive.snapshots()) == 1
    catalog.script = [step]
    try:
        await archive.tag("x")
    except ArchiveUnavailable:
        await archive.tag("x")
    assert await seqs(archive, "x") == [0, 1, 2, 4, 5, 6, 7]
    assert await archive.watermark() == 8
    assert await archive.check() == []
    await archive.collect_garbage()
    assert await archive.check() == []
    await archive.close()


async def test_conflicts_are_tried_again(flaky):
    """After a refusal the archive reads the watermark again and retries, a bounded number of times."""
    catalog, make = flaky
    archive = make()
    await archive.append(events(0, 4), 0, 4)
    catalog.script = ["conflict"] * 10
    assert await archive.append(events(4, 8), 4, 8) is True
    catalog.script = ["conflict"] * 100
    with pytest.raises(ArchiveConflict, match="20 times"):
        await archive.append(events(8, 12), 8, 12)
    catalog.script = []
    assert await archive.append(events(8, 12), 8, 12) is True
    assert await seqs(archive) == list(range(12))
    await archive.close()


async def test_someone_else_archived_the_batch_meanwhile(flaky):
    """A batch that another archiver commits between our read of the watermark and our commit is not added again."""
    catalog, make = flaky
    archive, other = make(), make()
    await archive.append(events(0, 4), 0, 4)

    def archive_it():
        asyncio.run(other.append(events(4, 8), 4, 8))

    def meanwhile():
        thread = threading.Thread(target=archive_it)
        thread.start()
        thread.join()

    catalog.meanwhile = meanwhile
    assert await archive.append(events(4, 8), 4, 8) is False
    assert await seqs(archive) == list(range(8))
    await archive.close()
    await other.close()


async def test_compaction_plans_anew_after_an_append(flaky):
    """An append between compaction's plan and its commit is neither lost nor doubled."""
    catalog, make = flaky
    archive, other = make(), make()
    for start in (0, 4):
        await archive.append(events(start, start + 4, at=lambda seq: START + seq), start, start + 4)

    def meanwhile():
        rows = events(8, 12, at=lambda seq: START + seq)
        thread = threading.Thread(target=lambda: asyncio.run(other.append(rows, 8, 12)))
        thread.start()
        thread.join()

    catalog.meanwhile = meanwhile
    assert (await archive.compact()).files_before == 3
    assert await seqs(archive) == list(range(12))
    assert await archive.watermark() == 12
    assert await archive.check() == []
    await archive.close()
    await other.close()


@pytest.mark.integration
@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
async def test_l3_25_two_archivers_race(tmp_path, rounds):
    """Two archivers given the same batches, with maintenance between: every event once, one winner each."""
    pair = [open_archive(tmp_path), open_archive(tmp_path)]
    await pair[0].append(events(0, 2), 0, 2)
    end = 2 + 2 * rounds
    for start in range(2, end, 2):
        rows = events(start, start + 2, at=lambda seq: START + seq)
        outcomes = await asyncio.gather(*(archive.append(rows, start, start + 2) for archive in pair))
        assert sorted(outcomes) == [False, True]
        if start % 10 == 0:
            await asyncio.gather(pair[0].compact(), pair[1].expire())
    for archive in pair:
        assert await archive.append(events(0, 2), 0, 2) is False
        assert await seqs(archive) == list(range(end))
        assert await archive.check() == []
        await archive.close()


@pytest.mark.integration
async def test_two_archivers_race_to_create(tmp_path):
    """Two archivers that find no table create one, and one of them archives the batch."""
    for attempt in range(5):
        root = tmp_path / str(attempt)
        pair = [open_archive(root), open_archive(root)]
        outcomes = await asyncio.gather(*(a.append(events(0, 4), 0, 4) for a in pair), return_exceptions=True)
        assert sum(outcome is True for outcome in outcomes) == 1
        assert all(isinstance(outcome, (bool, ArchiveUnavailable)) for outcome in outcomes)
        assert await pair[1].append(events(0, 4), 0, 4) is False
        assert await seqs(pair[1]) == [0, 1, 2, 3]
        for archive in pair:
            await archive.close()


async def test_locked_catalog(tmp_path):
    """A catalog that another program holds locked is ArchiveUnavailable; later the same call succeeds."""
    import sqlite3

    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.close()
    catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/shop/archive/catalog.db?timeout=0.1"}
    settings = Settings(catalog=catalog, namespace="lakebed")
    archive = open_archive(tmp_path, name="events", catalog=settings.catalog)
    holder = sqlite3.connect(tmp_path / "shop/archive/catalog.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ArchiveUnavailable):
        await archive.append(events(4, 8), 4, 8)
    holder.execute("COMMIT")
    holder.close()
    assert await archive.append(events(4, 8), 4, 8) is True
    assert await seqs(archive) == list(range(8))
    await archive.close()


async def test_lost_catalog_fails_closed(tmp_path):
    """Without its catalog.db the archive does not silently start again after the lost events."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.close()
    (tmp_path / "shop/archive/catalog.db").unlink()
    archive = open_archive(tmp_path)
    with pytest.raises(ArchiveConflict, match="the archive ends at event 0"):
        await archive.append(events(4, 8), 4, 8)
    await archive.close()
    assert any(path.suffix == ".parquet" for path in stored(tmp_path))


async def test_damaged_catalog(tmp_path):
    """An unreadable catalog.db or metadata file is ArchiveUnavailable, and a problem of check()."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.close()
    for path in stored(tmp_path):
        if path.name.endswith(".metadata.json"):
            path.write_bytes(path.read_bytes()[:100])
    archive = open_archive(tmp_path)
    with pytest.raises(ArchiveUnavailable, match="table cannot be read"):
        await archive.watermark()
    assert "table cannot be read" in (await archive.check())[0]
    await archive.close()
    (tmp_path / "shop/archive/catalog.db").write_bytes(b"this is no database" * 100)
    archive = open_archive(tmp_path)
    with pytest.raises(ArchiveUnavailable, match="catalog cannot be opened"):
        await archive.watermark()
    assert "catalog cannot be opened" in (await archive.check())[0]
    await archive.close()
