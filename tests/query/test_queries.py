from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from lakebed.errors import (
    InvalidAsOf,
    ObjectClosed,
    QueryError,
    QueryRefused,
    QueryTimeout,
    QueryTooLarge,
    SnapshotExpired,
)
from tests.query.parts import START, Parts, opened, us

DAY = 86_400_000_000
ENDLESS = "SELECT count(*) FROM range(100000000000) r WHERE hash(r.range) % 7 = 3"


def visits(day: int, count: int = 4) -> list[dict]:
    start = us("2026-03-01") + day * DAY
    return [
        {
            "event": "Visit",
            "user_id": f"u{i % 3}",
            "timestamp": start + i * 3_600_000_000,
            "properties": {"amount": i, "plan": "pro" if i % 2 else "free"},
        }
        for i in range(count)
    ]


@pytest.fixture
async def parts(tmp_path):
    async with opened(tmp_path) as assembled:
        for day in range(3):
            await assembled.track(visits(day))
            assembled.clock.advance(60)
        yield assembled


async def scalar(parts: Parts, sql: str, *args, **options):
    return (await parts.queries.run(sql, *args, **options)).scalar()


async def test_reads_its_writes(parts):
    """A query sees every event acknowledged before it, in `events` and in every rollup."""
    for total in (12, 13):
        assert await scalar(parts, "SELECT count(*) FROM events") == total
        assert await scalar(parts, "SELECT sum(count) FROM hourly_events") == total
        assert await scalar(parts, "SELECT sum(events) FROM daily_metrics") == total
        assert await scalar(parts, "SELECT sum(orders) FROM revenue") == total
        assert await scalar(parts, "SELECT sum(events) FROM people") == total
        await parts.track(visits(5, 1))


async def test_people(parts):
    """`people` has a row for each person: first seen, last seen, how many events, ids, groups and traits."""
    result = await parts.queries.run("SELECT * FROM people ORDER BY person_id")
    assert result.columns == ("person_id", "first_seen", "last_seen", "events", "ids", "groups", "traits")
    assert [tuple(row)[4:] for row in result] == [([f"u{number}"], [], "{}") for number in range(3)]
    assert [tuple(row)[:4] for row in result] == [
        ("u0", datetime(2026, 3, 1, 0, tzinfo=UTC), datetime(2026, 3, 3, 3, tzinfo=UTC), 6),
        ("u1", datetime(2026, 3, 1, 1, tzinfo=UTC), datetime(2026, 3, 3, 1, tzinfo=UTC), 3),
        ("u2", datetime(2026, 3, 1, 2, tzinfo=UTC), datetime(2026, 3, 3, 2, tzinfo=UTC), 3),
    ]


async def test_tiers_say_where_the_answer_came_from(parts):
    """`tiers`, `seq`, `files` and `watermark` tell what was read."""
    await parts.to_archive(8)
    result = await parts.queries.run("SELECT count(*) FROM events, daily_metrics")
    assert (result.tiers, result.seq, result.watermark, len(result.files)) == (("L1", "L2", "L3"), (0, 12), 8, 2)
    assert (await parts.queries.run("SELECT * FROM daily_metrics")).tiers == ("L2",)
    assert (await parts.queries.run("SELECT count(*) FROM events WHERE timestamp < '2026-03-02'")).tiers == ("L3",)
    alone = await parts.queries.run("SELECT 1")
    assert (alone.tiers, alone.seq, alone.files) == ((), (0, 0), ())


@pytest.mark.integration
async def test_one_day_of_a_year_opens_one_day(tmp_path):
    """A query about one day of an archived year opens only that day's files."""
    async with opened(tmp_path) as parts:
        start = us("2025-03-01")
        await parts.track([{"event": "x", "timestamp": start + day * DAY + DAY // 2} for day in range(365)])
        await parts.to_archive()
        await parts.track([{"event": "x"}])
        year = await parts.queries.run("SELECT count(*) FROM events")
        assert (year.scalar(), len(year.files)) == (366, 365)
        questions = [
            ("SELECT count(*) FROM events WHERE timestamp::date = '2025-07-04'", None),
            ("SELECT count(*) FROM events WHERE timestamp >= ? AND timestamp < ?", [date(2025, 7, 4), "2025-07-05"]),
            ("SELECT count(*) FROM events WHERE timestamp BETWEEN $a AND '2025-07-04 23:00'", {"a": "2025-07-04"}),
            ("WITH d AS (FROM events WHERE date_trunc('day', timestamp) = '2025-07-04') SELECT count(*) FROM d", None),
        ]
        for sql, params in questions:
            result = await parts.queries.run(sql, params)
            assert (result.scalar(), result.tiers) == (1, ("L3",))
            assert [path for path in result.files if "2025-07-04" in path] == list(result.files)
            assert len(result.files) == 1
        recent = await parts.queries.run("SELECT count(*) FROM events WHERE timestamp >= '2026-03-02'")
        assert (recent.scalar(), recent.tiers, recent.files) == (1, ("L1",), ())


async def test_params(parts):
    """`?` takes a sequence, `$name` a mapping; aware datetimes of any zone are instants."""
    noon = datetime(2026, 3, 2, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert await scalar(parts, "SELECT count(*) FROM events WHERE timestamp >= ? AND event = ?", [noon, "Visit"]) == 8
    assert await scalar(parts, "SELECT count(*) FROM events WHERE timestamp < $t", {"t": noon}) == 4
    assert await scalar(parts, "SELECT typeof(?)", (noon,)) == "TIMESTAMP WITH TIME ZONE"
    for bad in ("text", 3, {1, 2}):
        with pytest.raises(QueryRefused, match="Give a list"):
            await parts.queries.run("SELECT ?", bad)
    with pytest.raises(QueryError, match="mismatch"):
        await parts.queries.run("SELECT 1", [1])


async def test_order_and_limit(tmp_path):
    """ORDER BY survives, `limit` cuts, and more than `query_max_rows` is an error instead of a silent cut."""
    async with opened(tmp_path, query_max_rows=50_000) as parts:
        shuffled = "SELECT range AS n, hash(range) AS h FROM range({}) ORDER BY h"
        result = await parts.queries.run(shuffled.format(50_000))
        hashes = result.arrow()["h"].to_pylist()
        assert len(hashes) == 50_000
        assert hashes == sorted(hashes)
        cut = await parts.queries.run(shuffled.format(60_000), limit=10)
        assert (
            cut.arrow()["h"].to_pylist()
            == sorted((await parts.queries.run(shuffled.format(60_000), limit=50_000)).arrow()["h"].to_pylist())[:10]
        )
        assert len(await parts.queries.run("SELECT 1", limit=0)) == 0
        for limit in (None, 60_000):
            with pytest.raises(QueryTooLarge, match=r"more than 50000 rows \(query_max_rows\)") as caught:
                await parts.queries.run("SELECT * FROM range(50001)", limit=limit)
            assert caught.value.limit == 50_000
        for bad in (-1, "3", 1.5):
            with pytest.raises(QueryRefused, match="Give a number of rows"):
                await parts.queries.run("SELECT 1", limit=bad)


async def test_nothing_is_written(parts, tmp_path):
    """SQL that would write a file is refused, however it hides, and no file appears."""
    target = tmp_path / "stolen.csv"
    copy = f"WITH q AS (COPY (SELECT 1) TO '{target}') SELECT * FROM q"
    serialized = await scalar(parts, "SELECT json_serialize_sql(?)", [copy])
    attempts = [
        copy,
        f"COPY (SELECT 1) TO '{target}'",
        f"SELECT 1) TO '{target}' --",
        f"SELECT * FROM query('{copy.replace(chr(39), chr(39) * 2)}')",
        f"SELECT * FROM json_execute_serialized_sql('{serialized.replace(chr(39), chr(39) * 2)}')",
        f"SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{copy.replace(chr(39), chr(39) * 2)}'))",
    ]
    for sql in attempts:
        with pytest.raises(QueryError):
            await parts.queries.run(sql)
    assert json.loads(serialized) is not None
    assert not target.exists()


async def test_unknown_tables(parts):
    """An unknown table is refused with a list of those that exist."""
    with pytest.raises(QueryRefused, match="There are events, people, hourly_events, daily_metrics, revenue"):
        await parts.queries.run("SELECT * FROM evnts")


async def test_errors_of_duckdb(parts):
    """SQL that DuckDB cannot run is a QueryError with its message, when parsing, binding or fetching."""
    for sql, message in [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM events", 'Referenced column "nope" not found'),
        ("SELECT error('boom') FROM events", "boom"),
        ("SELECT CASE WHEN range = 90000 THEN error('late') ELSE 1 END FROM range(100000)", "late"),
    ]:
        with pytest.raises(QueryError, match=message) as caught:
            await parts.queries.run(sql)
        assert type(caught.value) is QueryError
    assert await scalar(parts, "SELECT count(*) FROM events") == 12


async def test_timeout(parts):
    """A query that takes too long is stopped, names its limit, and leaves the threads to others."""
    started = time.perf_counter()
    questions = [parts.queries.run(ENDLESS, timeout=0.2) for _ in range(4)]
    for outcome in await asyncio.gather(*questions, return_exceptions=True):
        assert isinstance(outcome, QueryTimeout)
        assert outcome.limit == 0.2
        assert "longer than 0.2 s" in str(outcome)
    assert time.perf_counter() - started < 3
    assert await scalar(parts, "SELECT count(*) FROM events") == 12


async def test_cancelling_stops_it(parts):
    """A cancelled await interrupts the query: with both threads taken, the next one still gets its turn."""
    tasks = [asyncio.ensure_future(parts.queries.run(ENDLESS)) for _ in range(2)]
    await asyncio.wait(tasks, timeout=0.1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert await scalar(parts, "SELECT count(*) FROM events", timeout=10) == 12


async def test_memory(tmp_path):
    """A query that passes the memory limit is an error that names it; smaller ones go on."""
    async with opened(tmp_path, query_memory_bytes=64 << 20) as parts:
        with pytest.raises(QueryTooLarge, match="query_memory_bytes"):
            await parts.queries.run("SELECT list(range) FROM range(50000000)")
        assert await scalar(parts, "SELECT 1") == 1


async def test_the_loop_is_not_held_up(parts):
    """While a heavy query runs, the loop goes round, and events are stored."""
    heavy = asyncio.ensure_future(parts.queries.run(ENDLESS, timeout=0.5))
    turns = 0
    while not heavy.done():
        await parts.track(visits(6, 1))
        turns += 1
    with pytest.raises(QueryTimeout):
        await heavy
    assert turns > 20
    assert await scalar(parts, "SELECT count(*) FROM events") == 12 + turns


async def test_threads(tmp_path):
    """Queries run on at most two threads of their own, and none is left after `close`, which stops what runs."""
    before = set(threading.enumerate())
    async with opened(tmp_path) as parts:
        endless = asyncio.ensure_future(parts.queries.run(ENDLESS))
        await asyncio.gather(*(parts.queries.run("SELECT 1") for _ in range(5)))
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("lakebed-query-shop")]
        assert 1 <= len(names) <= 2
        await parts.queries.close()
        with pytest.raises(QueryTimeout):
            await endless
        with pytest.raises(ObjectClosed):
            await parts.queries.run("SELECT 1")
    assert set(threading.enumerate()) - before == set()


async def test_as_of(parts):
    """Every table but the user's rollups is given as of an instant, equal to what was known then."""
    first = START + timedelta(seconds=30)
    for _ in range(2):
        assert await scalar(parts, "SELECT count(*) FROM events", as_of=first) == 4
        assert await scalar(parts, "SELECT count(*) FROM events", as_of=first.isoformat()) == 4
        assert await scalar(parts, "SELECT sum(events) FROM people", as_of=first) == 4
        daily = await parts.queries.run("SELECT * FROM daily_metrics", as_of=first)
        assert [tuple(row) for row in daily] == [(date(2026, 3, 1), 4, 3)]
        hourly = await parts.queries.run("SELECT * FROM hourly_events ORDER BY hour LIMIT 1", as_of=first)
        assert [tuple(row) for row in hourly] == [(datetime(2026, 3, 1, tzinfo=UTC), "Visit", 1)]
        assert daily.as_of == first
        assert daily.seq == (0, 4)
        assert "L2" not in daily.tiers
        await parts.to_archive()
    with pytest.raises(QueryRefused, match="rollup revenue cannot be read with as_of"):
        await parts.queries.run("SELECT * FROM revenue", as_of=first)
    with pytest.raises(InvalidAsOf, match="future"):
        await parts.queries.run("SELECT 1", as_of=START + timedelta(days=1))
    with pytest.raises(QueryRefused, match="both given"):
        await parts.queries.run("SELECT 1", as_of=first, snapshot="x")


async def test_built_in_rollups_have_one_shape(parts):
    """`hourly_events` and `daily_metrics` have the same columns, types and rows now as they have as of now."""
    now = START + timedelta(seconds=180)
    for table in ("hourly_events", "daily_metrics"):
        current = await parts.queries.run(f"SELECT * FROM {table} ORDER BY ALL")
        past = await parts.queries.run(f"SELECT * FROM {table} ORDER BY ALL", as_of=now)
        assert current.arrow().schema.equals(past.arrow().schema)
        assert current.rows == past.rows
        assert len(current) > 2


async def test_snapshot_of_rollups(parts):
    """The built-in rollups are given as of a snapshot; one that does not exist is SnapshotExpired."""
    await parts.to_archive(8)
    (snapshot,) = await parts.archive.snapshots()
    assert await scalar(parts, "SELECT sum(events) FROM daily_metrics", snapshot=snapshot.id) == 8
    with pytest.raises(SnapshotExpired):
        await parts.queries.run("SELECT * FROM events", snapshot=17)


async def test_now_prunes(parts):
    """`now()` is one instant in a query, and bounds it. DuckDB's now is the machine's, not the object's clock."""
    result = await parts.queries.run("SELECT count(*) FROM events WHERE timestamp > now() + INTERVAL 400000 DAYS")
    assert (result.scalar(), result.tiers) == (0, ())
