"""Vitals and tally: what an object says of itself to who watches it."""

from __future__ import annotations

import pytest

from lakebed import Analytics, Namespace, QueryError


async def test_tallies_count_events_commits_and_queries(tmp_path):
    """Events by what became of them, groups, syncs and questions; the books of `stats` say the same."""
    async with Analytics("tom", root=tmp_path) as tom:
        await tom.batch([{"event": "a", "messageId": "1"}, {"event": ""}, {"event": "b"}])
        await tom.batch([{"event": "a", "messageId": "1"}])
        await tom.query("SELECT 1")
        with pytest.raises(QueryError):
            await tom.query("SELECT nope FROM events")
        tally, stats = tom.tally(), tom.stats()
        assert (tally.stored, tally.duplicate, tally.rejected) == (2, 1, 1)
        assert (stats.stored, stats.duplicate, stats.rejected) == (2, 1, 1)
        assert (sum(tally.groups.counts), tally.groups.total) == (1, 2)
        assert sum(tally.syncs.counts) == 1
        assert sum(tally.queries.counts) == 2
        assert await tom.check() == []


async def test_tallies_continue_after_reopening(tmp_path):
    """It grows through closing and opening again, and is there while the object is closed."""
    tom = Analytics("tom", root=tmp_path)
    assert tom.tally().stored == 0
    for expected in (1, 2):
        async with tom:
            await tom.track("a")
            assert tom.tally().stored == expected
        assert tom.tally().stored == expected
    assert Analytics("tom", root=tmp_path).tally().stored == 0


async def test_health_of_an_open_object(tmp_path):
    """Lag of each consumer in events, bytes of the log, nothing pending and no problem when all went well."""
    async with Analytics("tom", root=tmp_path) as tom:
        await tom.batch([{"event": "a"}] * 30)
        vitals = await tom.vitals()
        assert vitals.lag["archive"] == 30
        assert vitals.tail_bytes > 0
        assert (vitals.pending, vitals.problems, vitals.log_bytes) == (0, 0, 0)
        await tom.archive()
        await tom.rollup()
        vitals = await tom.vitals()
        assert set(vitals.lag.values()) == {0}
        assert len(vitals.lag) > 1
        assert vitals.log_bytes > 0
        assert tom.log_problems == {}
        assert await tom.check() == []


async def test_watching_a_namespace_reports_objects_that_fall_asleep(tmp_path):
    """Watching awake objects does not keep them awake; one that falls asleep is reported once, with its tally."""
    reported = []
    async with Namespace(tmp_path, Analytics) as namespace:
        namespace.pool.watchers.append(lambda slept: reported.append((slept.name, slept.tally().stored)))
        await namespace.get("tom").track("a")
        assert [awake.name for awake in namespace.pool] == ["tom"]
        await namespace.pool.sleep("tom")
        assert reported == [("tom", 1)]
        await namespace.get("tom").track("b")
    assert reported == [("tom", 1), ("tom", 1)]
