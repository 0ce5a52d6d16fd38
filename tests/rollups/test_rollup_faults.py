from __future__ import annotations

import sqlite3

import pytest

from lakebed.errors import StorageUnavailable
from lakebed.rollups import fold
from lakebed.rollups.rollup import Rollup
from lakebed.tiers.storage.storage import Transaction
from tests.rollups.rollup_fixtures import HOUR, START, Log, event

pytestmark = pytest.mark.integration

WIDE = Rollup("wide", by=["plan"], measures={"n": "count()", "people": "distinct(person_id)"}, grain="day")


def _events(count, first=0):
    return [
        event(f"e{i % 5}", at=START + i * HOUR, user=f"{i:0200d}", plan=f"p{i}" * 40)
        for i in range(first, first + count)
    ]


async def _state(log):
    groups = await log.storage.fetch("SELECT * FROM rollup_groups ORDER BY 1, 2, 3")
    return groups, await log.storage.checkpoints()


async def test_a_full_disk_moves_neither_state_nor_checkpoint(tmp_path):
    """S1: SQLITE_FULL in the middle of a fold; afterwards the same fold gives exact rows."""
    async with Log(tmp_path / "s.db", _events(20), [WIDE]) as log:
        await log.rollups.catch_up(20)
        before = await _state(log)
        log.add(_events(1000, 20))
        ((pages,),) = await log.storage.fetch("PRAGMA page_count")
        for spare in (0, 3, 40, 100):
            await log.storage.fetch(f"PRAGMA max_page_count = {pages + spare}")
            with pytest.raises(StorageUnavailable) as caught:
                await log.rollups.catch_up(log.end)
            assert caught.value.code == "SQLITE_FULL"
            assert await _state(log) == before
        await log.storage.fetch("PRAGMA max_page_count = 1000000")
        await log.rollups.catch_up(log.end)
        assert sum(row["n"] for row in await log.rows("wide")) == 1020
        assert await log.rollups.distinct("wide", "people", [(0, START * 2)]) == [1020]
        assert await log.rollups.distinct("daily_metrics", "dau", [(0, START * 2)]) == [1020]


class _Lost(Exception):
    pass


@pytest.mark.parametrize("step", ["identify", "groups", "group_counts", "put_groups", "advance", "commit"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("turn", [1, 2])
async def test_a_fold_that_ends_at_any_step_can_be_repeated(tmp_path, monkeypatch, step, after, turn):
    """State and checkpoint never part: whichever step is the last, the repeated fold gives exact rows."""
    async with Log(tmp_path / "s.db", _events(10), [WIDE], [10]) as log:
        await log.rollups.catch_up(10)
        log.add(_events(10, 5))  # people and groups of both batches, and new ones
        before = await _state(log)
        owner = fold if step == "identify" else Transaction
        whole, calls = getattr(owner, step), []

        async def dying(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == turn and not after:
                raise _Lost
            result = await whole(self, *args, **kwargs)
            if len(calls) == turn:
                raise _Lost
            return result

        monkeypatch.setattr(owner, step, dying)
        once = step in ("identify", "commit") and turn == 2
        if once:
            await log.rollups.catch_up(log.end)  # there is no second one in this fold
        else:
            with pytest.raises(_Lost):
                await log.rollups.catch_up(log.end)
        monkeypatch.undo()
        if not once and (step, after) != ("commit", True):
            assert await _state(log) == before
        await log.rollups.catch_up(log.end)
        rows = await log.rows("wide")
        assert sum(row["n"] for row in rows) == 20
        assert sum(row["people"] for row in rows) == sum(row["dau"] for row in await log.rows("daily_metrics")) == 15


async def test_a_checkpoint_that_something_else_moved_stops_the_fold(tmp_path):
    """Two folds of one range cannot both be counted."""
    async with Log(tmp_path / "s.db", _events(10), [WIDE]) as log:
        whole = Transaction.advance

        async def raced(self, consumer, expected, next_seq):
            await self.fetch("INSERT INTO checkpoints VALUES (?, 3)", (consumer,))
            await whole(self, consumer, expected, next_seq)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transaction, "advance", raced)
            with pytest.raises(StorageUnavailable):
                await log.rollups.catch_up(log.end)
        assert await _state(log) == ([], {})
        await log.rollups.catch_up(log.end)


async def test_a_file_that_is_locked_by_another_writer(tmp_path):
    """A busy file is StorageUnavailable; nothing is lost by it."""
    async with Log(tmp_path / "s.db", _events(10), [WIDE]) as log:
        await log.storage.fetch("PRAGMA busy_timeout = 5")
        other = sqlite3.connect(log.storage.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable):
            await log.rollups.catch_up(log.end)
        other.execute("ROLLBACK")
        other.close()
        assert await log.rollups.catch_up(log.end) == 10
