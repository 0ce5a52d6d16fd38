from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import (
    Analytics,
    InvalidAsOf,
    ObjectClosed,
    QueryBusy,
    QueryCrashed,
    QueryError,
    QueryRefused,
    QueryTimeout,
    QueryTooLarge,
    Rollup,
    connect,
)
from lakebed.query.sandbox.forkserver import shared

pytestmark = pytest.mark.integration

ENDLESS = "SELECT count(*) FROM range(100000000000) r WHERE hash(r.range) % 7 = 3"


class Shop(Analytics):
    revenue = Rollup("revenue", by=["plan"], measures={"total": "sum(revenue)"}, grain="day")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Events of three days in the archive, in sealed segments and in the tail; also values that are hard for SQL."""
    with connect(
        tmp_path_factory.mktemp("shop"), "shop", Shop, headroom_bytes=0, segment_events=40, promote={"revenue": float}
    ) as analytics:
        for tier in range(3):
            analytics.batch(
                [
                    {
                        "event": ("order", "view", "O'Neill", "π")[n % 4],
                        "userId": f"u{n % 7}" if n % 3 else None,
                        "anonymousId": f"a{n % 5}",
                        "timestamp": (datetime(2026, 3, 1 + tier, tzinfo=UTC) + timedelta(minutes=37 * n)).isoformat(),
                        "properties": {"revenue": n / 4 if n % 5 else None, "plan": ("free", "pro")[n % 2], "n": n},
                    }
                    for n in range(50)
                ]
            )
            if tier == 0:
                analytics.archive()
        yield analytics
        assert analytics.check() == []


def same(shop, sql, params=None, **options):
    """Both ways give the same rows from the same tiers, or both refuse."""
    try:
        trusted = shop.query(sql, params, **options)
    except QueryError:
        with pytest.raises(QueryError):
            shop.query_untrusted(sql, params, **options)
        return None
    untrusted = shop.query_untrusted(sql, params, **options)
    assert untrusted.columns == trusted.columns
    assert repr(sorted(map(repr, untrusted.rows))) == repr(sorted(map(repr, trusted.rows)))  # NaN is equal to itself
    assert (untrusted.tiers, untrusted.seq, untrusted.watermark) == (trusted.tiers, trusted.seq, trusted.watermark)
    assert archived(untrusted) == archived(trusted)
    return untrusted


def archived(result):
    """The files of the archive; those of the log may be sealed between two queries."""
    return [path for path in result.files if "/archive/" in path]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM events",
        "SELECT count(*) FROM events",
        "SELECT event, count(*) AS n, sum(revenue), count(DISTINCT person_id) FROM events GROUP BY ALL",
        "SELECT * FROM people",
        "SELECT * FROM hourly_events",
        "SELECT * FROM daily_metrics",
        "SELECT * FROM revenue",
        "SELECT * FROM Events NATURAL JOIN people",
        "SELECT e.event, p.events FROM events e JOIN people p USING (person_id) WHERE e.timestamp >= '2026-03-02'",
        "SELECT event FROM events WHERE timestamp BETWEEN '2026-03-02' AND '2026-03-02T12:00:00Z'",
        "SELECT count(*) FROM events WHERE timestamp < now() - INTERVAL 1 DAY",
        "SELECT date_trunc('day', timestamp) AS day, count(*) FROM events GROUP BY 1",
        "SELECT properties->>'$.plan' AS plan, avg(CAST(properties->>'n' AS INT)) FROM events GROUP BY 1",
        "SELECT seq, lag(seq, 2) OVER (PARTITION BY event ORDER BY seq) FROM events QUALIFY seq > 100",
        """WITH days AS (SELECT range AS day FROM range(DATE '2026-03-01', DATE '2026-03-05', INTERVAL 1 DAY))
        SELECT day, count(seq) FROM days LEFT JOIN events ON date_trunc('day', timestamp) = day GROUP BY day""",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 1",
        "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(n, t)",
        "SELECT unnest([1, 2, 3]) AS n",
        "SELECT [event][1], properties->>'$.n' FROM events WHERE timestamp >= '2026-03-02'",
        "SELECT list_transform([1, 2], lambda x: x + 1), {'a': 1, 'b': [NULL]}, MAP {'k': 1.5}",
        "SELECT list(seq ORDER BY seq)[2], (list(event))[1:0] FROM events WHERE timestamp < now()",
        "SELECT 'nan'::DOUBLE, '-inf'::DOUBLE, 9007199254740993, 1.10::DECIMAL(9,2)",
        "SELECT 170141183460469231731687303715884105727, 2 ** 62, -170141183460469231731687303715884105727",
        "SELECT DATE '2026-01-01', TIME '01:02:03', INTERVAL '1 month 2 days', TIMESTAMP '2026-01-01', '\\xAA'::BLOB",
        "SELECT * FROM events PIVOT (count(*) FOR event IN ('order', 'view') GROUP BY user_id)",
        "SELECT COLUMNS('.*_id') FROM events WHERE seq < 3",
        "SELECT * EXCLUDE (properties, context) FROM events ORDER BY seq DESC LIMIT 3 OFFSET 1",
        "FROM events SELECT max(received_at) -- all of them",
        "SELECT 1;",
        "SELECT a.seq, b.seq FROM events a ASOF JOIN events b ON a.user_id = b.user_id AND a.timestamp > b.timestamp",
        "SELECT nothing FROM events",
        "SELECT 1 / 0, error('x')",
        "SELECT CAST('x' AS INT)",
        "SELECT event AS a, seq AS a FROM events WHERE seq = 1",
    ],
)
def test_answers_as_query_does(shop, sql):
    """Untrusted SQL gives the same rows, columns, tiers and files as trusted SQL."""
    same(shop, sql)


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT count(*) FROM events WHERE user_id = ? AND timestamp >= ?", ["u1", datetime(2026, 3, 2, tzinfo=UTC)]),
        ("SELECT count(*) FROM events WHERE user_id = $who AND seq > $low", {"who": "u1", "low": 20}),
        ("SELECT ?, ?, ?, ?, ?", [None, True, 1, 1.5, "π'"]),
        ("SELECT ?, ?, ?", [date(2026, 1, 1), Decimal("1.10"), b"\0\xff"]),
        ("SELECT count(*) FROM events WHERE list_contains(?, event)", [["order", "view"]]),
        ("SELECT ?", [datetime(2026, 1, 1, tzinfo=UTC)]),
        ("SELECT ? + 1", ["x"]),
        ("SELECT ?", []),
        ("SELECT 1", [1]),
    ],
)
def test_parameters(shop, sql, params):
    """Parameters have the same meaning as in `query`."""
    same(shop, sql, params)


def test_as_of(shop):
    """An answer about the past is the same, and a rollup of the past is refused the same."""
    then = shop.query("SELECT received_at FROM events WHERE seq = 49").scalar()
    assert same(shop, "SELECT count(*) FROM events", as_of=then).scalar() == 50
    same(shop, "SELECT * FROM daily_metrics", as_of=then)
    same(shop, "SELECT * FROM people", as_of=then)
    with pytest.raises(QueryRefused, match="cannot be read with as_of"):
        shop.query_untrusted("SELECT * FROM revenue", as_of=then)
    with pytest.raises(InvalidAsOf):
        shop.query_untrusted("SELECT 1", as_of="2999-01-01")


COLUMNS = st.sampled_from(["seq", "event", "user_id", "person_id", "timestamp", "revenue", "properties->>'plan'", "1"])
CONDITIONS = st.sampled_from(
    [
        "true",
        "seq > 70",
        "event = 'order'",
        "event LIKE 'o%'",
        "user_id IS NULL",
        "user_id IN ('u1', 'u2')",
        "revenue > 3.5",
        "revenue = 'nan'::DOUBLE",
        "NOT revenue < 9",
        "timestamp >= '2026-03-02'",
        "timestamp < TIMESTAMPTZ '2026-03-02 06:00:00+02'",
        "CAST(timestamp AS DATE) = '2026-03-03'",
        "(properties->>'n')::INT % 3 = 1",
        "person_id = (SELECT max(person_id) FROM events)",
        "seq IN (SELECT max(seq) FROM events GROUP BY event)",
    ]
)
AGGREGATES = st.sampled_from(["count(*)", "count(DISTINCT user_id)", "sum(revenue)", "max(timestamp)", "min(event)"])


@st.composite
def selects(draw):
    where = draw(st.sampled_from([" AND ", " OR "])).join(draw(st.lists(CONDITIONS, min_size=1, max_size=3)))
    if draw(st.booleans()):
        column = draw(COLUMNS)
        return f"SELECT {column} AS a, {draw(AGGREGATES)} AS b FROM events WHERE {where} GROUP BY {column}"
    columns = ", ".join(
        f"{column} AS c{at}" for at, column in enumerate(draw(st.lists(COLUMNS, min_size=1, max_size=4)))
    )
    return f"SELECT {columns} FROM events WHERE {where} ORDER BY seq LIMIT {draw(st.integers(0, 60))}"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selects())
def test_random_selects(shop, sql):
    """Whatever is pushed down or left out, the answer is the one that `query` gives."""
    same(shop, sql)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selects())
def test_random_selects_at_length(shop, sql):
    """The same with more examples."""
    same(shop, sql)


def test_says_where_the_mistake_is(shop):
    """An error has the line and column of what was written, not of what is run, and says what there is instead."""
    with pytest.raises(QueryRefused, match=r"line 2, column 8: there is no table evnts. Allowed tables: .*revenue"):
        shop.query_untrusted("SELECT *\n  FROM evnts")
    with pytest.raises(QueryRefused, match=r"line 1, column 8: the function read_text is not allowed"):
        shop.query_untrusted("SELECT read_text('x')")
    with pytest.raises(QueryRefused, match=r"function lowre is not allowed .*Allowed functions: lower"):
        shop.query_untrusted("SELECT 'π', lowre(event) FROM events")
    with pytest.raises(QueryError, match=r'Referenced column "evnt" not found'):
        shop.query_untrusted("SELECT\n evnt\n FROM events")
    with pytest.raises(QueryError, match="LINE 2: SELEC"):
        shop.query_untrusted("\nSELEC 1")


def test_limits(shop, tmp_path):
    """limit cuts; rows, bytes and length of SQL beyond the settings are refused with the limit's name."""
    assert len(shop.query_untrusted("SELECT * FROM events", limit=3)) == 3
    assert len(shop.query_untrusted("SELECT * FROM events", limit=0)) == 0
    for limit in (-1, "x", 1.5):
        with pytest.raises(QueryRefused):
            shop.query_untrusted("SELECT 1", limit=limit)
    for timeout in (0, -1, "x", float("nan"), True):
        with pytest.raises(QueryRefused):
            shop.query_untrusted("SELECT 1", timeout=timeout)
    with pytest.raises(QueryRefused, match="65536 characters"):
        shop.query_untrusted("SELECT 1" + " " * 70_000)
    with connect(tmp_path, "small", headroom_bytes=0, untrusted_max_rows=10, untrusted_max_bytes=100_000) as small:
        with pytest.raises(QueryTooLarge, match="untrusted_max_rows") as large:
            small.query_untrusted("SELECT * FROM range(11)")
        assert large.value.limit == 10
        assert len(small.query_untrusted("SELECT * FROM range(11)", limit=10)) == 10
        with pytest.raises(QueryTooLarge, match="untrusted_max_bytes"):
            small.query_untrusted("SELECT string_agg('xxxxxxxxxxxxxxxx', '') FROM range(20000)")


def test_a_missing_file_is_no_empty_answer(tmp_path):
    """A query fails if a file that it reads is missing."""
    with connect(tmp_path, "torn", headroom_bytes=0) as torn:
        torn.track("Seen")
        torn.archive()
        (path,) = torn.query("SELECT event FROM events").files
        Path(path).rename(tmp_path / "away")
        with pytest.raises(Exception, match="stored events cannot be read"):
            torn.query_untrusted("SELECT event FROM events")
        (tmp_path / "away").rename(path)
        assert torn.query_untrusted("SELECT event FROM events").scalar() == "Seen"


def children(pid):
    """The processes that `pid` started, and theirs."""
    pids = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                pids += [child, *children(child)]
    return pids


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and "Z" not in _state(pid)]


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


async def until(reached, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.01)


async def test_a_killed_child_is_an_error_and_no_more(tmp_path):
    """If the worker or the fork server dies during a query, that query fails and the next one is answered."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.track("Seen")
        for victim in ("child", "forkserver"):
            assert (await shop.query_untrusted("SELECT count(*) FROM events")).scalar() == 1
            running = asyncio.create_task(shop.query_untrusted(ENDLESS))
            await until(lambda: any(_busy(pid) for pid in children(shared().pid)))
            for pid in children(shared().pid) if victim == "child" else [shared().pid]:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(QueryCrashed):
                await running
        assert (await shop.query_untrusted("SELECT count(*) FROM events")).scalar() == 1
        assert await shop.check() == []


def _busy(pid):
    """Whether a process has used a fifth of a second of the processor: it is past its preparations."""
    return _spent(pid) > 20


def _spent(pid):
    """The processor time of a process, in hundredths of a second."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])


async def test_close_leaves_no_process_and_no_thread(tmp_path):
    """Closing an object ends its running queries; after the last object's close no process is left."""
    threads = threading.active_count()
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        running = asyncio.create_task(shop.query_untrusted(ENDLESS))
        await until(lambda: shared().running == 1 and any(_busy(pid) for pid in children(shared().pid)))
        server = shared().pid
        worker = max(children(server), key=_spent)  # another child is the spare one, which other tests' shop keeps
        users = shared().users
    with pytest.raises(ObjectClosed):
        await running
    assert not alive([worker])
    assert shared().users == users - 1
    assert alive([server]) == ([server] if users > 1 else [])  # the shop of other tests uses the same process
    assert threading.active_count() <= threads
    with pytest.raises(ObjectClosed):
        await shop.query_untrusted("SELECT 1")


async def test_idle_processes_end(tmp_path):
    """After a while without queries, the fork server and its spare worker end; the next query starts them again."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.query_untrusted("SELECT 1")
        users, server = shared().users, shared().pid
        shop._components.untrusted._end_idle()
        await until(lambda: shared().users == users - 1)
        if users == 1:
            await until(lambda: not alive([server, *children(server)]))
        assert (await shop.query_untrusted("SELECT 1")).scalar() == 1
        assert shared().users == users


async def test_cancelling_kills(tmp_path):
    """Cancelling the await ends the child: the place is free at once."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0, untrusted_queries=1) as shop:
        running = asyncio.create_task(shop.query_untrusted(ENDLESS))
        await until(lambda: shared().running == 1)
        with pytest.raises(QueryBusy) as busy:
            await shop.query_untrusted("SELECT 1")
        assert busy.value.scope == "object"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: not shop._components.untrusted._running)
        assert (await shop.query_untrusted("SELECT 1")).scalar() == 1


async def test_patience(tmp_path):
    """A waiting query is answered when there is room, refused after its patience, and ended when the object closes."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0, untrusted_queries=1) as shop:
        untrusted = shop._components.untrusted
        running = asyncio.create_task(untrusted.run(ENDLESS))
        await until(lambda: untrusted._running)
        waiting = [asyncio.create_task(untrusted.run_patiently(f"SELECT {n}", patience=60)) for n in range(2)]
        with pytest.raises(QueryBusy):
            await untrusted.run_patiently("SELECT 1", patience=0.01)
        running.cancel()
        assert [(await task).scalar() for task in waiting] == [0, 1]
        running = asyncio.create_task(untrusted.run(ENDLESS))
        await until(lambda: untrusted._running)
        queued = asyncio.create_task(untrusted.run_patiently("SELECT 1", patience=60))
        await asyncio.sleep(0)
    for task in (running, queued):
        with pytest.raises(ObjectClosed):
            await task


async def test_all_objects_share_one_bound(tmp_path):
    """Above the limit of workers a query is refused, for every object."""
    limit = shared().limit
    async with contextlib.AsyncExitStack() as stack:
        shops = [
            await stack.enter_async_context(Analytics(f"s{n}", root=tmp_path, headroom_bytes=0, untrusted_queries=99))
            for n in range(2)
        ]
        running = [asyncio.create_task(shops[n % 2].query_untrusted(ENDLESS, timeout=20)) for n in range(limit)]
        await until(lambda: shared().running == limit, 20)
        with pytest.raises(QueryBusy) as busy:
            await shops[0].query_untrusted("SELECT 1")
        assert busy.value.scope == "server"
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_time_is_up(tmp_path):
    """A timeout stops the query, is named, cannot be raised by the caller, and the next query is answered."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0, untrusted_timeout_s=0.5) as shop:
        await shop.query_untrusted("SELECT 1")
        for timeout in (0.2, None, 1000):
            with pytest.raises(QueryTimeout) as caught:
                await shop.query_untrusted(ENDLESS, timeout=timeout)
            assert caught.value.limit == (timeout if timeout == 0.2 else 0.5)
        assert (await shop.query_untrusted("SELECT 1")).scalar() == 1


SERVER = """
import asyncio, sys
from lakebed import Analytics

async def main():
    async with Analytics("shop", root=sys.argv[1], headroom_bytes=0) as shop:
        await shop.query_untrusted("SELECT 1")
        print("ready", flush=True)
        await shop.query_untrusted(sys.argv[2])

asyncio.run(main())
"""


async def test_a_killed_server_leaves_no_child(tmp_path):
    """If SIGKILL ends the server during a query, its workers end too."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path), ENDLESS], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        await until(lambda: any(_busy(pid) for pid in children(children(server.pid)[0])))
        started = children(server.pid)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    await until(lambda: not alive(started))


async def test_garbage_waits_for_the_child(tmp_path):
    """Files that a query reads are not deleted before it ends, even if compaction replaced them."""
    grace = {"garbage_grace_s": 0, "snapshots_keep": 1, "snapshots_age_s": 0}
    async with Analytics("shop", root=tmp_path, headroom_bytes=0, **grace) as shop:
        for n in range(3):
            await shop.track("Seen", {"n": n}, timestamp="2026-01-05T00:00:00Z")
            await shop.archive()
        files = [Path(path) for path in (await shop.query("SELECT event FROM events")).files]
        slow = "SELECT count(*) FROM events e, range(100000000000) r WHERE hash(r.range + e.seq) % 7 = 3"
        running = asyncio.create_task(shop.query_untrusted(slow))
        await until(lambda: shared().running == 1 and any(_busy(pid) for pid in children(shared().pid)))
        await shop.compact()
        await shop.expire()
        await shop.collect_garbage()
        assert all(path.exists() for path in files)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: shared().running == 0)
        await shop.expire()
        await shop.collect_garbage()
        assert not any(path.exists() for path in files)
        assert await shop.check() == []
