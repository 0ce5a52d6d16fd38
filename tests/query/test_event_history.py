from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import to_us
from lakebed.disk import Disk
from lakebed.errors import SnapshotExpired
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import columns_of, schema_of
from lakebed.query.bounds import Bounds
from lakebed.query.event_history import EventHistory
from lakebed.tiers.archive.archive import Archive
from tests.query.parts import START, Parts, opened, us

DAY = 86_400_000_000
MARCH_1 = us("2026-03-01")


def orders(count: int, *, day: int = 0) -> list[dict]:
    return [
        {
            "event": "Order" if i % 2 else "View",
            "user_id": f"u{i % 3}" if i % 4 else None,
            "anonymous_id": f"a{i % 2}",
            "timestamp": MARCH_1 + day * DAY + i * 60_000_000,
            "properties": {"amount": i / 4, "paid": bool(i % 2), "sku": f"it's {i}"},
        }
        for i in range(count)
    ]


async def three_tiers(parts: Parts) -> None:
    """Events in the archive, in a sealed file (one that straddles the watermark, too) and in the tail."""
    for day in range(6):
        await parts.track(orders(10, day=day))
        parts.clock.advance(60)
        if day in (2, 4):
            await parts.seal()
    await parts.to_archive(25)


async def rows_of(parts: Parts, sql: str, **options) -> list[tuple]:
    return [tuple(row) for row in await parts.queries.run(sql, **options)]


async def test_archive_and_log_are_split_by_seq(tmp_path):
    """No gap, no overlap: every event is read once, from the archive below the watermark and from the log above."""
    async with opened(tmp_path) as parts:
        await three_tiers(parts)
        result = await parts.queries.run("SELECT seq, event, person_id, amount, paid, sku FROM events ORDER BY seq")
        assert [tuple(row) for row in result] == [
            (e["seq"], e["event"], e["person"], *(e["properties"][name] for name in ("amount", "paid", "sku")))
            for e in parts.model
        ]
        assert (result.tiers, result.seq, result.watermark) == (("L1", "L3"), (0, 60), 25)
        assert sum("warehouse" in path for path in result.files) == 3  # three days
        assert sum(path.endswith("00000000000000000000.parquet") for path in result.files) == 1
        async with parts.history.cut() as cut:
            relation = cut.relation()
        ranges = [(max(p.low_seq, p.first_seq), min(p.high_seq, p.end_seq)) for p in relation.parts if p.tier == "L1"]
        assert ranges == [(25, 30), (30, 50)]
        assert relation.tail["seq"].to_pylist() == list(range(50, 60))


async def test_nothing_stored(tmp_path):
    """An empty object has an empty table with the right types."""
    async with opened(tmp_path) as parts:
        result = await parts.queries.run("SELECT * EXCLUDE (person_id) FROM events")
        assert len(result) == 0
        assert result.arrow().schema.types == schema_of(parts.promotions).types
        assert result.tiers == ()
        assert [table async for table in parts.history.read(0, 0)] == []


async def test_no_gap_when_the_archive_moves_on(tmp_path):
    """An archive commit and a prune between the two pins lose no event: the log is pinned before the archive."""

    class Moving(Archive):
        """Archives and prunes before and after each pin."""

        parts: Parts
        moving = False

        async def move(self, end: int) -> None:
            self.moving = True
            await self.parts.to_archive(end)
            await self.parts.pipeline.prune(end)
            self.moving = False

        def pin(self, snapshot=None):
            view = super().pin(snapshot)
            if self.moving:
                return view
            enter = view._acquire

            async def acquire():
                await self.move(20)
                held = await enter()
                await self.move(40)
                return held

            view._acquire = acquire
            return view

    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        for day in range(4):
            await parts.track(orders(10, day=day))
            parts.clock.advance(60)
            await parts.seal()
        await parts.to_archive(10)
        archive = Moving(tmp_path / "archive", "shop", parts.settings, parts.clock, Disk(), parts.promotions)
        archive.parts = parts
        history = EventHistory(parts.pipeline, archive, parts.promotions, parts.engine)
        async with history.cut() as cut:
            relation = cut.relation()
            assert cut.watermark == 20
            cursor = parts.engine.cursor()
            relation.register(cursor)
            assert cursor.sql("SELECT list(seq ORDER BY seq) FROM events").fetchall() == [(list(range(40)),)]
            cursor.close()
        assert parts.pipeline.start_seq == 0, "what is pinned was not pruned"
        assert await parts.pipeline.prune(40) == 4, "what is not pinned any more could have been"
        history.close()
        await archive.close()


async def test_read_gives_exactly_the_range(tmp_path):
    """`read` gives [start, end) in order, in bounded tables of one schema, from whichever tier."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        await three_tiers(parts)
        parts.clock.advance(10)
        await parts.to_archive(35)
        assert await parts.pipeline.prune(35) == 1
        schema = schema_of(parts.promotions)
        for start, end, rows in [
            (0, 60, 7),
            (0, 60, 1000),
            (3, 4, 1),
            (28, 33, 2),
            (31, 52, 20),
            (59, 60, 9),
            (60, 60, 1),
        ]:
            tables = [table async for table in parts.history.read(start, end, rows=rows)]
            assert all(table.num_rows <= rows and table.schema.equals(schema) for table in tables)
            combined = pa.concat_tables([schema.empty_table(), *tables])
            assert combined.column_names == list(columns_of(parts.promotions))
            assert combined["seq"].to_pylist() == list(range(start, end))
            assert combined["amount"].to_pylist() == [e["properties"]["amount"] for e in parts.model[start:end]]
        with pytest.raises(ValueError, match="the log ends at 60"):
            await anext(parts.history.read(0, 61))


@pytest.mark.parametrize("promoted", [frozenset(), frozenset({"paid"}), frozenset({"amount", "absent"})])
async def test_read_computes_the_promoted_columns_that_are_asked_for(tmp_path, promoted):
    """From each tier: the base columns and those, with the same values as if all were computed."""
    async with opened(tmp_path) as parts:
        await three_tiers(parts)
        selected = [table async for table in parts.history.read(0, 60, promoted, rows=17)]
        complete = [table async for table in parts.history.read(0, 60, rows=17)]
        names = [*SCHEMA.names, *(name for name in ("amount", "paid") if name in promoted)]
        assert all(table.column_names == names for table in selected)
        assert pa.concat_tables(selected) == pa.concat_tables(complete).select(names)


async def test_read_passes_over_erased_events(tmp_path):
    """Events erased from the archive are missing from what `read` gives; the others are there."""
    async with opened(tmp_path, retention_s=0, dedupe_window_s=1) as parts:
        await parts.track(orders(10))
        await parts.seal()
        await parts.to_archive()
        parts.clock.advance(10)
        await parts.pipeline.prune(10)
        await parts.archive.erase("user_id", ["u1"])
        (table,) = [table async for table in parts.history.read(0, 10)]
        assert table["seq"].to_pylist() == [e["seq"] for e in parts.model if e["person"] != "u1"]


async def test_promoted_later(tmp_path):
    """A property promoted after its events were sealed or archived is a typed column of all of them."""
    async with opened(tmp_path, promote={}) as parts:
        await three_tiers(parts)
        model = parts.model
    async with opened(tmp_path) as parts:
        await parts.track(orders(10, day=6))
        await parts.seal()
        await parts.track(orders(10, day=7))
        model += parts.model
        expected = [(e["properties"]["amount"], e["properties"]["paid"]) for e in model]
        assert await rows_of(parts, "SELECT amount, paid FROM events ORDER BY seq") == expected
        (table,) = [table async for table in parts.history.read(20, 30, rows=100)]
        assert table["amount"].to_pylist() == [amount for amount, _ in expected[20:30]]


async def test_odd_directories(tmp_path):
    """Directories with glob characters, quotes and `=` in their names are read, as themselves."""
    async with opened(tmp_path / "a[1]*?'x=1") as parts:
        await three_tiers(parts)
        result = await parts.queries.run("SELECT * FROM events")
        assert len(result) == 60
        assert "x" not in result.columns


async def test_snapshot_is_the_archive_alone(tmp_path):
    """`snapshot=` reads what the archive held then, by id and by tag, and nothing of the log."""
    async with opened(tmp_path) as parts:
        await parts.track(orders(10))
        await parts.to_archive()
        await parts.archive.tag("first")
        await parts.track(orders(10, day=1))
        await parts.to_archive()
        await parts.track(orders(10, day=2))
        first, second = (entry.id for entry in await parts.archive.snapshots())
        for snapshot, seqs in [("first", 10), (first, 10), (second, 20)]:
            result = await parts.queries.run("SELECT max(seq) + 1 FROM events", snapshot=snapshot)
            assert (result.scalar(), result.seq, result.tiers) == (seqs, (0, seqs), ("L3",))
        with pytest.raises(SnapshotExpired):
            await parts.queries.run("SELECT 1 FROM events", snapshot="second")


async def test_files_are_left_out_by_time(tmp_path):
    """Only the parts of archive, sealed files and tail that overlap the bounds are read."""
    async with opened(tmp_path) as parts:
        await three_tiers(parts)
        async with parts.history.cut() as cut:
            for day in range(6):
                relation = cut.relation([Bounds(MARCH_1 + day * DAY, MARCH_1 + (day + 1) * DAY - 1)])
                sizes = (
                    sum(p.tier == "L3" for p in relation.parts),
                    sum(p.tier == "L1" for p in relation.parts),
                    len(relation.tail),
                )
                # The first sealed file has days 0 to 2; only the last five of its events count.
                assert sizes == [(1, 1, 0), (1, 1, 0), (1, 1, 0), (0, 1, 0), (0, 1, 0), (0, 0, 10)][day]
            assert cut.relation([Bounds(2, 1)]).tiers == frozenset()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.lists(st.integers(-3, 0), min_size=1, max_size=5)),
        st.tuples(st.just("advance"), st.sampled_from([0.000001, 1.0, 3600.0])),
        st.tuples(st.just("back"), st.sampled_from([0.000002, 30.0])),
        st.tuples(st.just("seal"), st.none()),
        st.tuples(st.just("archive"), st.integers(1, 8)),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("prune"), st.none()),
    ),
    min_size=3,
    max_size=14,
)


async def _apply(parts: Parts, operation: str, value) -> None:
    if operation == "track":
        await parts.track([{"event": "x", "timestamp": MARCH_1 + day * DAY, "user_id": f"u{day}"} for day in value])
    elif operation in ("advance", "back"):
        (parts.clock.advance if operation == "advance" else parts.clock.step)(
            value if operation == "advance" else -value
        )
    elif operation == "seal":
        await parts.seal()
    elif operation == "archive":
        await parts.to_archive(min(await parts.archive.watermark() + value, parts.pipeline.next_seq))
    elif operation == "compact" and parts.archive.exists():
        await parts.archive.compact()
    elif operation == "prune":
        await parts.pipeline.prune(await parts.archive.watermark())


async def _check_past(parts: Parts, answers: dict[int, int]) -> None:
    received = [e["received_at"] for e in parts.model]
    moments = {m for r in received for m in (r - 1, r, r + 1) if m <= parts.clock.now_us()} | {parts.clock.now_us()}
    fresh = EventHistory(parts.pipeline, parts.archive, parts.promotions, parts.engine)  # it remembers nothing
    for moment in moments | answers.keys():
        expected = sum(r <= moment for r in received)
        assert await fresh.resolve(moment) == await parts.history.resolve(moment) == expected
        assert answers.setdefault(moment, expected) == expected, "the past has changed"
        if moment <= parts.clock.now_us() and expected % 3 == 0:
            async with parts.history.cut(as_of_us=moment) as cut:
                cursor = parts.engine.cursor()
                cut.relation().register(cursor)
                assert cursor.sql("SELECT list(seq ORDER BY seq) FROM events").fetchall()[0][0] == (
                    list(range(expected)) or None
                )
                cursor.close()
    fresh.close()


async def _check_operations(operations) -> None:
    with tempfile.TemporaryDirectory() as directory:
        options = {"retention_s": 0, "dedupe_window_s": 1}
        async with opened(Path(directory), **options) as parts:
            answers: dict[int, int] = {}
            for operation, value in operations:
                await _apply(parts, operation, value)
                await _check_past(parts, answers)
            assert [e["seq"] for e in parts.model] == list(range(len(parts.model)))


@pytest.mark.integration
@settings(max_examples=6, deadline=None)
@given(OPERATIONS)
def test_as_of_is_exact_for_ever(operations):
    """At any instant the past is exactly the events received up to then, and no later work changes it."""
    asyncio.run(_check_operations(operations))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(OPERATIONS)
def test_as_of_is_exact_for_ever_at_length(operations):
    """The same with more examples."""
    asyncio.run(_check_operations(operations))


async def test_as_of_now_does_not_change(tmp_path):
    """An event tracked after a query began is not in its answer, even while the clock stands still."""
    async with opened(tmp_path) as parts:
        await parts.track(orders(3))
        now = parts.clock.now_us()
        assert now == to_us(START)
        assert await parts.history.resolve(now) == 3
        await parts.track(orders(4))
        assert await parts.history.resolve(now) == 3
        fresh = EventHistory(parts.pipeline, parts.archive, parts.promotions, parts.engine)
        assert await fresh.resolve(now) == 3
        fresh.close()
