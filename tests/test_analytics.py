"""The public face of Analytics: what is not the business of one tier alone."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from lakebed import Disk, InvalidEvent, LogUnavailable, ManualClock, ObjectClosed, PromotionConflict, every
from lakebed.clock import from_us
from tests.analytics_fixtures import START, Shop, fill, maker

ALL = "SELECT type, event, user_id, anonymous_id, group_id, session_id, properties, context FROM events ORDER BY seq"


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    return maker(tmp_path, clock)


class BrokenDisk(Disk):
    """Cannot make anything durable while `broken`."""

    broken = False

    def sync(self, descriptor):
        if self.broken:
            raise OSError(5, "injected")
        super().sync(descriptor)


# Tracking


async def test_the_six_calls_take_segments_arguments_in_segments_order(make):
    """track, page, screen, identify, group and alias take what Segment's libraries take, in that order."""
    async with make() as shop:
        await shop.track("Order Completed", {"a": 1}, user_id="u", session_id="s", context={"ip": "::1"})
        await shop.page("Docs", "Home", {"a": 2}, anonymous_id="anon")
        await shop.page("Pricing", anonymous_id="anon")
        await shop.screen("Main", "Login", {"a": 3}, user_id="u")
        await shop.screen("Cart", user_id="u")
        await shop.identify("u", {"email": "u@example.org"}, anonymous_id="anon")
        await shop.identify(anonymous_id="anon")
        await shop.group("acme", {"plan": "pro"}, user_id="u")
        await shop.alias("u", "anon")
        assert [tuple(row) for row in await shop.query(ALL)] == [
            ("track", "Order Completed", "u", None, None, "s", '{"a":1}', '{"ip":"::1"}'),
            ("page", "Home", None, "anon", None, None, '{"a":2,"category":"Docs"}', "{}"),
            ("page", "Pricing", None, "anon", None, None, "{}", "{}"),
            ("screen", "Login", "u", None, None, None, '{"a":3,"category":"Main"}', "{}"),
            ("screen", "Cart", "u", None, None, None, "{}", "{}"),
            ("identify", None, "u", "anon", None, None, '{"email":"u@example.org"}', "{}"),
            ("identify", None, None, "anon", None, None, "{}", "{}"),
            ("group", None, "u", None, "acme", None, '{"plan":"pro"}', "{}"),
            ("alias", None, "u", None, None, None, '{"previousId":"anon"}', "{}"),
        ]
        assert shop.stats().totals == {"Order Completed": 1, "Home": 1, "Pricing": 1, "Login": 1, "Cart": 1}


@pytest.mark.parametrize(
    "timestamp",
    ["2026-01-15T10:00:00Z", "2026-01-15T11:00:00+01:00", START - timedelta(hours=2), 1768471200, 1768471200000],
)
async def test_a_timestamp_may_be_text_a_datetime_or_a_number(make, timestamp):
    """A time is ISO text, a datetime, epoch seconds or milliseconds; its absence means now."""
    async with make() as shop:
        await shop.track("a", timestamp=timestamp)
        await shop.track("b")
        times = [row.timestamp for row in await shop.query("SELECT timestamp FROM events ORDER BY seq")]
        assert times[0] == START - timedelta(hours=2)
        assert times[1] == from_us((START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) + 1)


async def test_batch_answers_each_item_in_order(make):
    """One receipt an item, in order: mappings in Segment's names or ours, JSON, NDJSON; a bad one spoils no other."""
    mappings = [
        {"event": "a", "userId": "u", "messageId": "1"},
        {"event": "b", "user_id": "u", "message_id": "2"},
        {"event": "", "messageId": "3"},
        {"type": "page", "name": "Home", "anonymousId": "x", "messageId": "1"},
    ]
    async with make() as shop:
        receipts = await shop.batch(mappings)
        assert [(receipt.message_id, receipt.seq, receipt.status) for receipt in receipts] == [
            ("1", 0, "stored"),
            ("2", 1, "stored"),
            ("3", None, "rejected"),
            ("1", 0, "duplicate"),
        ]
        array = await shop.batch(b'[{"event": "c"}, {"event": "\\ud800"}, {"event": "d"}]')
        assert [receipt.status for receipt in array] == ["stored", "rejected", "stored"]
        lines = await shop.batch('{"event": "e"}\n{"event": 7}\n{"event": "f"}\n')
        assert [receipt.status for receipt in lines] == ["stored", "rejected", "stored"]
        assert await shop.batch([]) == []
        with pytest.raises(InvalidEvent):
            shop.batch(b"[{")
        assert [row.event for row in await shop.query("SELECT event FROM events ORDER BY seq")] == list("abcdef")
        assert await shop.check() == []


async def test_receipts_of_a_batch_of_several_commits_are_in_order(make):
    """More items than one commit takes are answered as one list, in order."""
    async with make(segment_events=4000) as shop:
        receipts = await shop.batch([{"event": f"e{n % 3}"} if n % 1000 else {"event": ""} for n in range(12_000)])
        assert [receipt.status == "rejected" for receipt in receipts] == [n % 1000 == 0 for n in range(12_000)]
        assert [receipt.seq for receipt in receipts if receipt.seq is not None] == list(range(11_988))


async def test_an_event_that_is_not_awaited_is_stored(make):
    """A track that nobody awaits is stored all the same; flush() and close() wait for it."""
    async with make() as shop:
        for number in range(30):
            shop.track("order", {"n": number})
        await shop.flush()
        assert shop.stats().next_seq == 30
        shop.track("last")
    async with make() as shop:
        assert shop.stats().totals == {"order": 30, "last": 1}


async def test_the_failure_of_an_event_that_is_not_awaited_reaches_on_error(make, caplog):
    """What nobody awaited and was not stored reaches `on_error` and `check()`; what was awaited does not."""
    heard, disk = [], BrokenDisk()
    async with make(on_error=heard.append, disk=disk) as shop:
        with pytest.raises(InvalidEvent):
            await shop.track("")
        assert heard == []
        shop.track("x" * 201)
        await shop.flush()
        disk.broken = True
        shop.track("lost")
        await shop.flush()
        await asyncio.sleep(0)
        disk.broken = False
        assert [type(error) for error in heard] == [InvalidEvent, LogUnavailable]
        assert (await shop.track("kept")).seq == 0
        problems = await shop.check()
        assert {problem.where for problem in problems} == {"tracking"}
        assert len(problems) == 2
        assert "was not awaited" in caplog.text


async def test_an_event_whose_await_is_cancelled_is_stored(make):
    """Cancelling the await of an acknowledgement leaves the event to be stored."""
    async with make() as shop:
        ack = shop.track("order")
        waiting = asyncio.ensure_future(_awaited(ack))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await ack).seq == (await ack).seq == 0
        assert shop.stats().next_seq == 1


async def _awaited(ack):
    return await ack


async def test_calls_on_a_closed_object_raise(make):
    """Every call before open() and after close() is ObjectClosed; it may be opened again."""
    shop = make()
    for _ in range(2):
        for call in (shop.stats, lambda: shop.track("a"), lambda: shop.batch([])):
            with pytest.raises(ObjectClosed):
                call()
        for call in (shop.dau, shop.rollup, shop.archive, shop.check):
            with pytest.raises(ObjectClosed):
                await call()
        async with shop:
            await shop.track("a")
    assert not shop.is_open


# Promotions


async def test_a_promoted_column_stays_after_reopening(make):
    """A promoted column stays one, also where an opening does not name it; new ones are filled for old events."""
    async with make() as shop:
        await fill(shop, 25)
        await shop.archive()
    async with make(promote={}) as shop:
        await fill(shop, 5, first=25)
        assert (await shop.query("SELECT sum(revenue) FROM events")).scalar() == sum(range(30)) / 2
    async with make(promote={"plan": str, "exact": Decimal}) as shop:
        await shop.track("order", {"revenue": 0.5, "plan": "gold", "exact": "1.10"})
        result = await shop.query("SELECT plan, count(*), sum(revenue), max(exact) FROM events GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in result] == [
            ("free", 15, sum(range(0, 30, 2)) / 2, None),
            ("gold", 1, 0.5, Decimal("1.10")),
            ("pro", 15, sum(range(1, 30, 2)) / 2, None),
        ]
        await shop.archive()
        again = await shop.query("SELECT plan, count(*), sum(revenue), max(exact) FROM events GROUP BY 1 ORDER BY 1")
        assert (again.rows, again.tiers) == (result.rows, ("L3",))


async def test_a_promoted_column_keeps_its_type(make):
    """A column keeps its type for ever: another one is refused when the object opens, and changes nothing."""
    async with make() as shop:
        await fill(shop, 5)
    with pytest.raises(PromotionConflict, match="revenue"):
        await make(promote={"revenue": int}).open()
    with pytest.raises(PromotionConflict):
        await make(promote={"Revenue": float}).open()
    async with make() as shop:
        assert (await shop.query("SELECT sum(revenue) FROM events")).scalar() == 5.0


# Schedules


class Busy(Shop):
    ran = ()

    @every.day.at("9am")
    async def report(self):
        self.ran = (*self.ran, (await self.query("SELECT count(*) FROM events")).scalar())

    @every.hour
    async def fails(self):
        raise ValueError("no ink")


async def test_built_in_schedules_run_when_due(make, clock):
    """Hourly rollup; daily expiry at 3am; on Sunday at 4am the archive takes what is older than the window."""
    async with make(archive_window_s=86_400.0) as shop:
        await fill(shop, 20)
        assert await shop.run_due() == []
        clock.advance(3600)
        assert [run.job for run in await shop.run_due()] == ["rollup every hour"]
        assert await shop._components.rollups.checkpoint() == 20
        clock.advance(16 * 3600)
        assert {run.job for run in await shop.run_due()} == {"rollup every hour", "tidy every day at 03:00"}
        clock.advance(48 * 3600)  # Sunday, 05:00
        await fill(shop, 5, first=20)
        runs = await shop.run_due()
        assert {run.job for run in runs} == {
            "rollup every hour",
            "tidy every day at 03:00",
            "settle every Sunday at 04:00",
        }
        assert [run.error for run in runs] == [None] * 3
        assert shop.stats().watermark == 20
        assert await shop.run_due() == []
        assert await shop.check() == []


async def test_methods_under_every_run_when_due(make, clock):
    """A method under `@every` runs when it is due, once for all that was missed; one that fails is in check()."""
    async with make(Busy) as shop:
        await fill(shop, 3)
        clock.advance(24 * 3600)
        await shop.run_due()
        assert shop.ran == (3,)
        problems = await shop.check()
        assert [(problem.where, "no ink" in problem.message) for problem in problems] == [("schedule", True)]
    clock.advance(48 * 3600)
    async with make(Busy) as shop:
        await asyncio.wait(list(shop._components.scheduler._running.values()))
        assert shop.ran == (3,), "what was missed is made up for once, when the object opens"


# check()


def _damage_groups(shop):
    with sqlite3.connect(shop.directory / "storage.db") as storage:
        storage.execute("DELETE FROM rollup_groups WHERE bucket = (SELECT min(bucket) FROM rollup_groups)")
    storage.close()
    return "rollups"


def _damage_archive(shop):
    next((shop.directory / "archive").rglob("data/**/*.parquet")).unlink()
    return "archive"


def _cut_archive(shop):
    path = next((shop.directory / "archive").rglob("data/**/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    return "archive"


@pytest.mark.parametrize("damage", [_damage_groups, _damage_archive, _cut_archive])
async def test_check_reports_missing_rows_and_damaged_files(make, damage):
    """Rows taken from a rollup, and data files missing or cut, are problems said in sentences, with where they are."""
    async with make() as shop:
        await fill(shop, 25)
        await shop.archive()
        await fill(shop, 15, first=25)
        await shop.rollup()
        assert await shop.check() == []
    where = damage(shop)
    async with make() as shop:
        problems = await shop.check()
        assert {problem.where for problem in problems} == {where}
        assert all(problem.message for problem in problems)


# Answers beside tracking


@pytest.mark.integration
async def test_a_heavy_query_does_not_block_the_loop(make, capsys):
    """Tracks are acknowledged while a heavy question is still being worked on; their latency is printed."""
    async with make(segment_events=100_000) as shop:
        await shop.batch([{"event": f"e{number % 10}", "userId": f"u{number % 997}"} for number in range(20_000)])
        heavy = asyncio.ensure_future(
            shop.query(
                "SELECT count(*) FROM events a JOIN events b ON a.event = b.event AND a.user_id < b.user_id "
                "WHERE hash(a.seq, b.seq) % 7 = 3"
            )
        )
        loop = asyncio.get_running_loop()
        taken = []
        for number in range(100):
            begun = loop.time()
            await shop.track("order", {"n": number})
            taken.append(loop.time() - begun)
            if heavy.done():
                break
        assert len(taken) >= 10, "fewer than ten tracks were acknowledged during the query"
        assert (await heavy).scalar() > 0
        assert (await shop.query("SELECT count(*) FROM events WHERE event = 'order'")).scalar() == len(taken)
        with capsys.disabled():
            p99 = sorted(taken)[len(taken) * 99 // 100]
            print(f" [p99 of {len(taken)} tracks beside a heavy query: {p99 * 1000:.1f} ms] ", end="")  # noqa: T201
