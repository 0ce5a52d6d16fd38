"""Queries that exceed a limit or are cancelled leave no resources behind."""

import asyncio
import gc
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from lakebed import QueryError, QueryRefused, QueryTimeout, QueryTooLarge, SnapshotExpired
from tests.faults.orders import fill, holds, move_all

ENDLESS = "SELECT count(*) FROM range(100000000000) r, events WHERE hash(r.range) % 7 = 3"
GREEDY = "SELECT list(range) FROM range(3000000), (SELECT count(*) FROM events)"
SPILLING = "SELECT max(m) FROM (SELECT md5(range::VARCHAR) AS m FROM range(400000) ORDER BY m), (FROM events LIMIT 1)"


def resident_bytes():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def left(shop):
    """The resources that queries could leave: threads, descriptors, tasks, pins of archive and log, spilled files."""
    tiers = shop._components
    return {
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "tasks": len(asyncio.all_tasks()),
        "questions": len(tiers.queries._running),
        "archive pins": len(tiers.archive._pins._held),
        "log pins": sum(tiers.pipeline._files._pins.values()),
        "spilled": sum(path.stat().st_size for path in (shop.directory / "spill").rglob("*") if path.is_file()),
    }


async def quiet(shop):
    """Return when no query is running."""
    while shop._components.queries._running:
        await asyncio.wait(set(shop._components.queries._running))
    await asyncio.sleep(0)
    gc.collect()


async def out_of_memory(shop):
    with pytest.raises(QueryTooLarge, match="query_memory_bytes"):
        await shop.query(GREEDY)


async def too_slow(shop):
    with pytest.raises(QueryTimeout):
        await shop.query(ENDLESS, timeout=0.01)


async def cancelled(shop):
    query = asyncio.ensure_future(shop.query(ENDLESS))
    await asyncio.wait([query], timeout=0.005)
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query


async def failing(shop):
    with pytest.raises(QueryError):
        await shop.query("SELECT error('boom') FROM events")


async def refused(shop):
    with pytest.raises(SnapshotExpired):
        await shop.query("SELECT * FROM events", snapshot=1)


@pytest.fixture
async def shop(make, clock):
    """Events in the archive alone, in a sealed segment and in the tail; little memory for queries."""
    async with make(query_memory_bytes=16 << 20, query_threads=1) as shop:
        await fill(shop, 0, 20)
        await move_all(shop, clock)
        await fill(shop, 20, 35)
        assert await holds(shop, 35)
        yield shop


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [out_of_memory, too_slow, cancelled, failing, refused])
async def test_query_46_failed_queries_free_everything(shop, kind, count):
    """After many questions that ended badly no thread, file, task, pin or memory is left more than after a few."""
    for _ in range(5):
        await kind(shop)
    await quiet(shop)
    before, resident = left(shop), resident_bytes()
    for _ in range(count):
        await kind(shop)
    await quiet(shop)
    after = left(shop)
    assert after.pop("threads") < before.pop("threads") + 5, "pools start some late; one for each would be a leak"
    assert after == before
    assert before["spilled"] == before["archive pins"] == before["log pins"] == 0
    assert resident_bytes() - resident < 64 << 20
    assert await holds(shop, 35)
    assert await shop.check() == []


async def test_query_46_a_stopped_query_deletes_its_spill_files(shop):
    """The files that a query spills to disk are deleted with it, however it ends."""
    spilled = 0
    for timeout in (0.05, 0.2, 30.0):
        query = asyncio.ensure_future(shop.query(SPILLING, timeout=timeout))
        while not query.done():
            spilled = max(spilled, left(shop)["spilled"])
            await asyncio.wait([query], timeout=0.005)
        assert query.exception() is None or isinstance(query.exception(), (QueryTimeout, QueryTooLarge))
        await quiet(shop)
        assert left(shop)["spilled"] == 0
    assert spilled > 0, "nothing was spilled: the test shows nothing"


async def test_query_46_cancelled_queries_free_their_threads(shop):
    """After cancelled queries used all of an object's query threads, the next query is answered."""
    queries = [asyncio.ensure_future(shop.query(ENDLESS)) for _ in range(20)]
    await asyncio.wait(queries, timeout=0.05)
    for query in queries:
        query.cancel()
    await asyncio.wait(queries)
    assert (await shop.query("SELECT count(*) FROM events", timeout=20)).scalar() == 35


async def test_query_45_a_snapshot_expires_during_a_query(shop):
    """An expired snapshot is SnapshotExpired in every form; `as_of` the same moment still has its answer."""
    await fill(shop, 35, 50)
    first = (await shop.snapshots())[0].id
    await shop.tag("kept")
    await shop.archive()
    await shop.compact()
    assert first not in (await shop.expire()).snapshots
    await shop.untag("kept")
    assert first in (await shop.expire()).snapshots
    await shop.collect_garbage()
    for gone in (first, "kept", 0, -1, "main2"):
        for sql in ("SELECT * FROM events", "SELECT * FROM daily_metrics", "SELECT * FROM people"):
            with pytest.raises(SnapshotExpired) as expired:
                await shop.query(sql, snapshot=gone)
            assert expired.value.snapshot == gone
    assert await holds(shop, 50)
    assert left(shop)["archive pins"] == 0


def fingerprint(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


async def test_query_47_no_known_bypass_of_read_only_works(shop, tmp_path, monkeypatch):
    """No known bypass writes, changes or loads anything, or sees the program's own variables.

    SQL in this process is the app's own: it may read files. Untrusted SQL needs the sandbox of another process.
    """
    monkeypatch.chdir(tmp_path)
    secret = pa.table({"a": [1]})
    async with shop._components.archive.pin() as view:
        victim = view.files[0].path
    target = tmp_path / "stolen.csv"
    copies = [
        f"COPY (SELECT 1) TO '{path}'{options}"
        for path in (target, victim)
        for options in ("", " (use_tmp_file false)", " (FORMAT parquet, use_tmp_file false)")
    ]
    writes = [*copies, "INSERT INTO events SELECT * FROM events RETURNING seq", "DELETE FROM events RETURNING seq"]
    writes += [
        "UPDATE events SET event = 'x' RETURNING seq",
        "CREATE TABLE t AS SELECT 1",
        f"EXPORT DATABASE '{target}'",
    ]
    quoted = [write.replace("'", "''") for write in writes]
    attempts = [
        *writes,
        *(f"WITH q AS ({write}) SELECT * FROM q" for write in writes),
        *(f"SELECT * FROM (WITH q AS ({write}) SELECT * FROM q)" for write in writes),
        *(f"SELECT 1 WHERE EXISTS (WITH q AS MATERIALIZED ({write}) SELECT * FROM q)" for write in writes),
        *(f"SELECT * FROM query('{text}')" for text in quoted),
        *(f"SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{text}'))" for text in quoted),
        *(f"SELECT 1; {write}" for write in writes),
        *(f"SELECT 1) LIMIT 1; {write}; --" for write in writes),
        *(f"SELECT 1 /* ; */ ; {write}" for write in writes),
        f"ATTACH '{tmp_path}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1TB'",
        "SET GLOBAL enable_external_access = true",
        "RESET memory_limit",
        "PRAGMA database_list",
        "CREATE SECRET s (TYPE s3)",
        "CALL checkpoint()",
        "SELECT * FROM checkpoint()",
        "SELECT nextval('s')",
        "SELECT * FROM secret",
        "SELECT * FROM python_map_function(1)",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "ROLLBACK",
        "USE memory",
    ]
    before = fingerprint(tmp_path)
    for sql in attempts:
        with pytest.raises(QueryError):
            await shop.query(sql)
    assert fingerprint(tmp_path) == before
    with pytest.raises(QueryRefused, match="There are events"):
        await shop.query("SELECT * FROM secret")
    assert secret.num_rows == 1
    assert await holds(shop, 35)
    assert await shop.check() == []


async def test_query_47_a_long_scalar_call_is_abandoned(shop):
    """A single call of a function that ignores interrupts cannot block its caller beyond timeout and grace."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises((QueryTimeout, QueryTooLarge)):
        await shop.query("SELECT length(regexp_replace(repeat('ab', 4000000), 'a', 'c', 'g'))", timeout=0.1)
    assert loop.time() - started < 10
    await quiet(shop)
    assert await holds(shop, 35)
