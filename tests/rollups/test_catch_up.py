from __future__ import annotations

import asyncio
import threading

import pyarrow as pa
import pytest

from lakebed.errors import InvalidRollup, LogBehind, ObjectClosed
from lakebed.rollups.rollup import Rollup
from tests.rollups.rollup_fixtures import HOUR, START, Log, event


def _threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("lakebed-")]


PLANS = Rollup(
    "plans",
    by=["plan"],
    measures={"n": "count()", "total": "sum(revenue)", "mean": "avg(revenue)", "people": "distinct(person_id)"},
    grain="day",
    timezone="Europe/Berlin",
    max_groups=2,
)
NAMES = Rollup("names", by=["event", "plan"], grain="month", timezone="America/New_York", max_groups=3)


async def test_catch_up_is_incremental_and_reads_once_for_all(tmp_path):
    """Each event is read once for all rollups at one checkpoint, and running again is a no-op."""
    events = [event(at=START + i) for i in range(10)]
    async with Log(tmp_path / "s.db", events, [PLANS, NAMES], [4]) as log:
        assert await log.rollups.catch_up(6) == 6
        assert await log.rollups.catch_up(6) == 0
        assert await log.rollups.catch_up(3) == 0
        assert await log.rollups.catch_up(10) == 4
        assert log.reads == [(0, 6), (6, 10)]
        assert await log.rollups.checkpoint() == 10


async def test_callers_at_the_same_time_share_the_work(tmp_path):
    """Any number of concurrent calls folds each event once; a call with a larger end goes on from there."""
    events = [event(at=START + i) for i in range(50)]
    async with Log(tmp_path / "s.db", events, [], [7]) as log:
        done = await asyncio.gather(*(log.rollups.catch_up(end) for end in (20, 50, 20, 35, 50)))
        assert max(done) == 50
        assert await log.rollups.checkpoint() == 50
        assert sum(end - start for start, end in log.reads) == 50


async def test_a_cancelled_caller_leaves_the_work_to_the_others(tmp_path):
    """Cancelling one call neither stops the other one nor counts anything twice."""
    events = [event(at=START + i) for i in range(30)]
    async with Log(tmp_path / "s.db", events, [], [5]) as log:
        first, second = (asyncio.create_task(log.rollups.catch_up(30)) for _ in range(2))
        while not log.reads:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert sum(row["events"] for row in await log.rows("daily_metrics")) == 30


async def test_close_ends_the_work_at_a_table(tmp_path):
    """close() does not wait for a long history; what was folded is whole, and the rest is folded later."""
    events = [event(at=START + i) for i in range(2000)]
    log = Log(tmp_path / "s.db", events, [], [1])
    await log.storage.open()
    await log.rollups.open()
    call = asyncio.create_task(log.rollups.catch_up(log.end))
    while not (await log.storage.checkpoints()).get("rollup:hourly_events"):
        await asyncio.sleep(0)
    await log.rollups.close()
    with pytest.raises(ObjectClosed):
        await call
    assert _threads() == []
    with pytest.raises(ObjectClosed):
        await log.rollups.catch_up(log.end)
    await log.rollups.open()
    assert 0 < await log.rollups.checkpoint() < log.end
    log.sizes = [1000]
    await log.rollups.catch_up(log.end)
    assert await log.rollups.check(log.end) == []
    await log.rollups.close()
    await log.rollups.close()
    await log.storage.close()
    assert _threads() == []


async def test_new_and_changed_rollups_are_computed_from_history(tmp_path):
    """A new or changed declaration starts at 0, an unchanged one is not touched, a removed one is dropped."""
    events = [event(at=START + i, plan="ab"[i % 2]) for i in range(10)]
    async with Log(tmp_path / "s.db", events, [Rollup("a", by=["plan"]), Rollup("b")]) as log:
        await log.rollups.catch_up(log.end)
        before = await log.storage.stored_rollups()
        await log.reopen([Rollup("a", by=["plan"], where="true"), Rollup("c")])
        after = await log.storage.stored_rollups()
        assert after.keys() == {"hourly_events", "daily_metrics", "a", "c"}
        assert after["hourly_events"] == before["hourly_events"]
        assert after["a"] != before["a"]
        assert await log.storage.checkpoints() == {"rollup:hourly_events": 10, "rollup:daily_metrics": 10}
        assert await log.rows("a") == []
        log.reads.clear()
        assert await log.rollups.catch_up(log.end) == 10
        assert log.reads == [(0, 10)]
        assert {row["plan"]: row["count"] for row in await log.rows("a")} == {"a": 5, "b": 5}
        with pytest.raises(InvalidRollup):
            await log.rollups.table("b")
        await log.reopen([])
        assert len(await log.storage.fetch("SELECT 1 FROM rollup_groups WHERE rollup = ?", (after["a"].id,))) == 0


async def test_a_rollup_under_reconstruction_does_not_hold_up_another(tmp_path):
    """A reader of one rollup waits for that one only; those that fell behind meet the others on the way."""
    events = [event(at=START + i) for i in range(10)]
    async with Log(tmp_path / "s.db", events[:8], [], [3]) as log:
        await log.rollups.catch_up(8)
        log.add(events[8:])
        await log.reopen([Rollup("late")])
        log.reads.clear()
        assert await log.rollups.catch_up(10, "daily_metrics") == 2
        assert log.reads == [(8, 10)]
        assert await log.rollups.catch_up(10) == 10
        assert log.reads == [(8, 10), (0, 10)]


async def test_losing_the_file_loses_nothing(tmp_path):
    """Without storage.db everything is computed again from the log, with the same rows."""
    events = [
        event(f"e{i % 3}", at=START + i * HOUR, user=f"u{i % 11}", plan="abc"[i % 3], revenue=i / 7) for i in range(60)
    ]
    seen = []
    for sizes in ([9], [60]):
        async with Log(tmp_path / "s.db", events, [PLANS], sizes) as log:
            await log.rollups.catch_up(log.end)
            seen.append([(await log.rollups.table(rollup.name)) for rollup in log.rollups.rollups])
        for file in tmp_path.iterdir():
            file.unlink()
    assert all(first.equals(second) for first, second in zip(*seen, strict=True))


async def test_a_reader_that_stops_short_is_loud(tmp_path):
    """Events that do not come are not passed over."""
    async with Log(tmp_path / "s.db", [event() for _ in range(5)], []) as log:
        whole = log.table
        log.table = whole.slice(0, 3)
        with pytest.raises(LogBehind):
            await log.rollups.catch_up(5)
        log.table = pa.concat_tables([whole.slice(0, 3), whole.slice(4, 1)])
        with pytest.raises(LogBehind):
            await log.rollups.catch_up(4)
        log.table = whole
        await log.rollups.catch_up(5)


async def test_a_rollup_that_fails_on_an_event_does_not_hold_up_the_others(tmp_path):
    """Its own readers get the reason; the others, and their checkpoints, go on."""
    events = [event("1"), event("2"), event("x"), event("3")]
    log = Log(tmp_path / "s.db", events, [Rollup("r", where="CAST(event AS INT) > 0")], [2])
    async with log:
        with pytest.raises(InvalidRollup) as caught:
            await log.rollups.catch_up(log.end)
        assert caught.value.name == "r"
        assert sum(row["count"] for row in await log.rows("hourly_events")) == 4
        assert sum(row["count"] for row in await log.rows("r")) == 2
        assert await log.rollups.catch_up(log.end, "daily_metrics") == 0
        assert await log.rollups.checkpoint() == 2
        with pytest.raises(InvalidRollup):
            await log.rollups.catch_up(log.end, "r")
        await log.reopen([Rollup("r", where="try_cast(event AS INT) > 0")])
        assert await log.rollups.catch_up(log.end) == 4
        assert sum(row["count"] for row in await log.rows("r")) == 3
