from __future__ import annotations

import asyncio
import random

import pytest

from lakebed.errors import StorageUnavailable
from lakebed.rollups.buckets import _MAX_ROWS
from lakebed.rollups.rollup import Rollup
from lakebed.tiers.storage.storage import Transaction
from tests.rollups.rollup_fixtures import HOUR, START, Log, event

LOCAL = Rollup("local", by=["event"], measures={"n": "count()", "s": "sum(score)"}, grain="day", timezone="Asia/Tokyo")


def _event(chance):
    at = START + chance.randrange(-200 * HOUR, 20 * HOUR)
    return event(chance.choice("abc"), at=at, user=f"u{chance.randrange(9)}", score=chance.choice([1, 2**62]))


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(5))
async def test_what_is_held_equals_what_is_stored(tmp_path, seed):
    """After any mix of catch-ups and queries, an answer equals that of newly opened rollups."""
    chance = random.Random(seed)
    async with Log(tmp_path / "s.db", [], [LOCAL], [7]) as log:
        for _ in range(12):
            log.add([_event(chance) for _ in range(chance.randrange(12))])
            await log.rollups.catch_up(log.end)
            start, end = sorted(START + chance.randrange(-220 * HOUR, 30 * HOUR) for _ in range(2))
            for name in ("hourly_events", "daily_metrics", "local"):
                held = await log.rows(name, start, end)
                whole = await log.rows(name)
                log.rollups._cache = type(log.rollups._cache)() if chance.random() < 0.2 else log.rollups._cache
                number = log.rollups._numbers[name]
                rows = await log.storage.states(number, start, end)
                assert held == log.rollups._folds[name].table(rows).to_pylist()
                assert await log.rows(name, START - 300 * HOUR, START + 40 * HOUR) == whole


async def test_an_answer_is_of_one_state_while_a_fold_goes_on(tmp_path):
    """Days that are held and days that are read are never of two states: totals are those of a whole table."""
    events = [event("a", at=START + (i % 4) * 24 * HOUR) for i in range(400)]
    async with Log(tmp_path / "s.db", events, [], [20]) as log:
        await log.rollups.catch_up(20)
        folding = asyncio.create_task(log.rollups.catch_up(400))
        chance, seen = random.Random(1), []
        while not folding.done():
            await asyncio.sleep(0)  # answers that are held do not give way to the fold
            first = chance.randrange(4)  # warm some of the days
            await log.rollups.table("hourly_events", START + first * 24 * HOUR, START + (first + 1) * 24 * HOUR)
            table = await log.rollups.table("hourly_events", START - HOUR, START + 96 * HOUR)
            seen.append(sum(table.column("count").to_pylist()))
        await folding
    assert {total % 20 for total in seen} == {0}
    assert seen == sorted(seen)


async def test_a_failed_commit_leaves_nothing_held(tmp_path, monkeypatch):
    """After a commit with an unknown outcome, queries are answered from the file."""
    async with Log(tmp_path / "s.db", [event("a")], []) as log:
        await log.rollups.catch_up(1)
        await log.rows("hourly_events", START, START + HOUR)
        log.add([event("a")])
        whole = Transaction.commit

        async def lost(self):
            await whole(self)
            raise StorageUnavailable("the answer was lost")

        monkeypatch.setattr(Transaction, "commit", lost)
        with pytest.raises(StorageUnavailable):
            await log.rollups.catch_up(2)
        monkeypatch.undo()
        assert [row["count"] for row in await log.rows("hourly_events", START, START + HOUR)] == [2]
        assert await log.rollups.catch_up(2) == 0


async def test_what_is_held_is_bounded(tmp_path):
    """The number of rows in memory is bounded for any number of queries."""
    events = [event(f"e{i}", at=START + i % 50 * 24 * HOUR) for i in range(500)]
    async with Log(tmp_path / "s.db", events, []) as log:
        await log.rollups.catch_up(log.end)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lakebed.rollups.buckets._MAX_ROWS", 25)
            for day in range(50):
                await log.rows("hourly_events", START + day * 24 * HOUR, START + (day + 1) * 24 * HOUR)
                assert log.rollups._cache._rows <= 25
                assert sum(table.num_rows for _, table in log.rollups._cache._chunks.values()) <= 25
    assert _MAX_ROWS > 0
