"""Two objects share one Iceberg table by mistake: nothing is lost, and the second gets an error."""

import asyncio
from datetime import UTC, datetime

import pytest

from lakebed import Analytics, ArchiveConflict, ArchiveUnavailable, LogBehind, ManualClock

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def make(tmp_path):
    """Objects with one name, each in its own root, and one external catalog."""
    catalog = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/shared.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }

    def make(root, clock=None):
        options = {"headroom_bytes": 0, "catalog": catalog, "retention_s": 0.0, "dedupe_window_s": 1.0}
        return Analytics("shop", root=tmp_path / root, clock=clock or ManualClock(START), **options)

    return make


async def fill(shop, count):
    return await shop.batch([{"event": "order", "messageId": f"{shop.root.name}-{n}"} for n in range(count)])


@pytest.mark.parametrize(("first", "second"), [(10, 10), (10, 15), (15, 10)])
async def test_a_second_object_cannot_archive_into_a_shared_table(make, first, second):
    """The second object's archive run raises ArchiveConflict and takes no event as archived: its log keeps them."""
    clock = ManualClock(START)
    async with make("a") as a, make("b", clock) as b:
        await fill(a, first)
        await fill(b, second)
        assert (await a.archive()).rows == first
        for _ in range(2):
            with pytest.raises(ArchiveConflict):
                await b.archive()
        clock.advance(100_000)
        await b.rollup()
        assert b._components.pipeline.start_seq == 0, "the log let go of events that are archived nowhere"
        assert await a.check() == []
        names = [row.message_id for row in await a.query("SELECT message_id FROM events ORDER BY seq")]
        assert names == [f"a-{number}" for number in range(first)]


async def patient(shop):
    """Archive; repeat it if the catalog was busy with the other object: the documentation says that this is safe."""
    try:
        return await shop.archive()
    except ArchiveUnavailable:
        return await shop.archive()


@pytest.mark.parametrize("turn", range(4))
async def test_of_two_objects_that_race_for_a_table_one_is_refused(make, turn):
    """Of two objects that archive at the same time one is refused, in any order, and no log is pruned."""
    async with make("a") as a, make("b") as b:
        await fill(a, 10)
        await fill(b, 10)
        racing = [patient(shop) for shop in ((a, b) if turn % 2 else (b, a))]
        outcomes = await asyncio.gather(*racing, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ArchiveConflict", "Archived"]
        snapshots = await a.snapshots()
        assert [snapshot.rows for snapshot in snapshots] == [10]
        for shop in (a, b):
            assert shop._components.pipeline.start_seq == 0


async def test_an_archived_object_with_a_lost_disk_does_not_open_empty(make):
    """An archived object with an empty directory raises LogBehind: new events would get archived seqs."""
    async with make("a") as a:
        await fill(a, 10)
        await a.archive()
    with pytest.raises(LogBehind):
        await make("new disk").open()
