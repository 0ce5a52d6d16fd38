"""Wrong clocks and odd times of events: every answer stays exact, and the same in every tier."""

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from lakebed import Analytics, InvalidEvent, ManualClock, Rollup
from lakebed.clock import from_us
from tests.analytics_fixtures import START, maker

HOUR, YEAR = 3600.0, 365 * 86400.0
BERLIN = ZoneInfo("Europe/Berlin")
COUNT = "SELECT count(*) FROM events"


class Diary(Analytics):
    local = Rollup("local", measures={"n": "count()"}, grain="day", timezone="Europe/Berlin")
    hours = Rollup("hours", measures={"n": "count()"}, grain="hour", timezone="Europe/Berlin")
    months = Rollup("months", measures={"n": "count()"}, grain="month", timezone="Europe/Berlin")


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    def make(**options):
        return maker(tmp_path, clock)(Diary, **options)

    return make


# 37


async def through(shop, clock, steps, answers):
    """Track an event and record a query's answer at each step of the wall clock; the answers must never change."""
    for number, step in enumerate(steps):
        clock.step(step)
        (receipt,) = await shop.batch([{"event": "e", "userId": "u", "messageId": f"m{len(answers)}-{number}"}])
        assert receipt.status == "stored"
        moment = from_us(clock.now_us())
        answers.append((moment, (await shop.query(COUNT, as_of=moment)).scalar()))
        again = await shop.track("e", user_id="u", message_id=receipt.message_id)
        assert (again.status, again.seq) == ("duplicate", receipt.seq)
        if number % 3 == 1:
            await shop.archive()


async def agreed(shop, clock, answers):
    """All tiers have the same events, `received_at` rises, and the answer as of each instant has not changed."""
    rows = (await shop.query("SELECT seq, received_at FROM events ORDER BY seq")).rows
    assert [row[0] for row in rows] == list(range(len(answers)))
    assert all(earlier[1] < later[1] for earlier, later in pairwise(rows))
    assert (await shop.query("SELECT sum(count)::BIGINT FROM hourly_events")).scalar() == len(answers)
    assert (await shop.query("SELECT sum(n)::BIGINT FROM local")).scalar() == len(answers)
    assert shop.stats().totals == {"e": len(answers)}
    for moment, answer in answers:
        if moment <= from_us(clock.now_us()):
            assert (await shop.query(COUNT, as_of=moment)).scalar() == answer
    assert await shop.check() == []


@pytest.mark.parametrize(
    "steps",
    [
        [0, HOUR, -HOUR, -HOUR, 2 * HOUR],
        [0, YEAR, -YEAR, -YEAR, YEAR],
        [0] * 5,
    ],
    ids=["an hour", "a year", "stuck"],
)
async def test_time_37_a_wrong_clock_loses_and_doubles_nothing(make, clock, steps):
    """With a clock an hour or a year off, or stuck: each event once, rising `received_at`, fixed as_of answers."""
    answers = []
    async with make(segment_events=3) as shop:
        await through(shop, clock, steps, answers)
        await agreed(shop, clock, answers)
    async with make(segment_events=3) as shop:
        await through(shop, clock, steps, answers)
        await agreed(shop, clock, answers)
    clock.step(YEAR)
    async with make(segment_events=3) as shop:
        await agreed(shop, clock, answers)


# 38

# Around both clock changes in Berlin, a leap day, the end of 1969, and the limits of timestamps.
ODD = [
    *(datetime(2025, 3, 30, 0, 30, tzinfo=UTC) + timedelta(minutes=30 * half) for half in range(48)),
    *(datetime(2025, 10, 25, 22, 0, tzinfo=UTC) + timedelta(minutes=30 * half) for half in range(52)),
    *(datetime(2024, 2, 28, 22, 0, tzinfo=UTC) + timedelta(hours=hour) for hour in range(52)),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1969, 12, 31, 22, 59, 59, 999_999, tzinfo=UTC),
    datetime(1900, 2, 28, 23, 30, tzinfo=UTC),
    datetime(1900, 3, 1, tzinfo=UTC),
]
ENDS = [datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 2, 3, tzinfo=UTC)]


def hour_of(moment):
    """The UTC time at which the local hour of a moment began; Berlin's offsets of these years are whole hours."""
    return moment.replace(minute=0, second=0, microsecond=0)


async def calendar(shop):
    """The answers of rollups and of SQL about `ODD` equal those of plain Python."""
    counted = {row[0]: row[1] for row in (await shop.query("SELECT date, n FROM local")).rows}
    days = Counter(moment.astimezone(BERLIN).date() for moment in ODD)
    assert {day: n for day, n in counted.items() if day > date(2, 1, 1)} == days
    hours = {row[0]: row[1] for row in (await shop.query("SELECT hour, n FROM hours")).rows}
    since_1950 = datetime(1950, 1, 1, tzinfo=UTC)
    expected = Counter(hour_of(moment) for moment in ODD if moment > since_1950)
    assert {hour: n for hour, n in hours.items() if hour > since_1950} == expected
    months = {row[0]: row[1] for row in (await shop.query("SELECT month, n FROM months")).rows}
    assert {month: n for month, n in months.items() if month > date(2, 1, 1)} == Counter(
        day.replace(day=1) for day in days.elements()
    )
    for first in (date(2025, 3, 29), date(2025, 10, 24), date(2024, 2, 27), date(1969, 12, 30), date(1900, 2, 27)):
        rows = (await shop.dau(start=first, end=first + timedelta(days=3))).rows
        utc = Counter(moment.date() for moment in ODD)
        assert [(row[0], row[2]) for row in rows] == [
            (day, utc[day]) for day in (first + timedelta(days=more) for more in range(4))
        ]
    series = await shop.timeseries(start=datetime(2024, 2, 29, tzinfo=UTC), end=datetime(2024, 3, 1, tzinfo=UTC))
    assert [row[1] for row in series.rows] == [1] * 24
    stored = (await shop.query("SELECT timestamp FROM events ORDER BY timestamp")).rows
    assert [row[0] for row in stored] == sorted([*ENDS, *ODD])
    negative = await shop.query("SELECT count(*) FROM events WHERE timestamp < '1970-01-01T00:00:00Z'")
    assert negative.scalar() == 4 + len(ENDS)


async def test_time_38_clock_changes_leap_days_and_early_years(make, clock):
    """Clock changes, leap days, times before 1970 and in the year 1 are counted as by a dict, in log and archive."""
    moments = [*ENDS, *ODD]
    async with make(segment_events=40, retention_s=0.0, dedupe_window_s=60.0) as shop:
        receipts = await shop.batch(
            [{"event": "e", "userId": "u", "timestamp": moment.isoformat()} for moment in moments]
        )
        assert {receipt.status for receipt in receipts} == {"stored"}
        await calendar(shop)
        await shop.archive()
        await calendar(shop)
        clock.advance(5000)
        await shop.rollup()
        await shop.compact()
        assert shop._components.pipeline.start_seq == len(moments)
        await calendar(shop)
        assert await shop.check() == []
    async with make() as shop:
        await calendar(shop)
        assert await shop.check() == []


IMPOSSIBLE = [
    "9999-12-31T23:59:59.999999Z",
    "10000-01-01T00:00:00Z",
    "0000-12-31T00:00:00Z",
    "2025-02-29T00:00:00Z",
    "-001-01-01T00:00:00Z",
    253402300800,
    -62135596801,
    10**30,
    float("inf"),
]


async def test_time_38_impossible_times_are_refused(make):
    """What lies too far ahead, or in no calendar, is refused with a reason; nothing of it is stored."""
    async with make() as shop:
        for bad in IMPOSSIBLE:
            with pytest.raises(InvalidEvent):
                pytest.fail(f"{bad!r} was stored: {await shop.track('e', timestamp=bad)}")
        receipts = await shop.batch([{"event": "e", "timestamp": bad} for bad in IMPOSSIBLE])
        statuses = {repr(bad): receipt.status for bad, receipt in zip(IMPOSSIBLE, receipts, strict=True)}
        assert statuses == {repr(bad): "rejected" for bad in IMPOSSIBLE}
        assert (await shop.query(COUNT)).scalar() == 0
        assert await shop.check() == []


# 39, 41


async def test_time_39_duplicated_late_out_of_order_and_future_events(make, clock):
    """In any order, twice, years late or up to a day ahead: each event counts once in its hour, in every tier."""
    lags = [0, 3 * HOUR, -23.9 * HOUR, 400 * 24 * HOUR, 10 * 24 * HOUR, 60, 8 * 24 * HOUR, -60]
    sent = []

    async def send(shop):
        now = from_us(clock.now_us())
        items = [
            {
                "event": "e",
                "userId": f"u{at % 3}",
                "messageId": f"m{len(sent) + at}",
                "timestamp": (now - timedelta(seconds=lag)).isoformat(),
            }
            for at, lag in enumerate(lags)
        ]
        receipts = await shop.batch([*items, *reversed(items)])
        assert [receipt.status for receipt in receipts] == ["stored"] * len(items) + ["duplicate"] * len(items)
        sent.extend(datetime.fromisoformat(item["timestamp"]) for item in items)
        too_early = {"event": "e", "timestamp": (now + timedelta(hours=24, seconds=1)).isoformat()}
        assert [receipt.status for receipt in await shop.batch([too_early])] == ["rejected"]

    async def exact(shop):
        hours = {row[0]: row[1] for row in (await shop.query("SELECT hour, count FROM hourly_events")).rows}
        assert hours == Counter(map(hour_of, sent))
        raw = await shop.query("SELECT date_trunc('hour', timestamp), count(*) FROM events GROUP BY ALL")
        assert {row[0]: row[1] for row in raw.rows} == hours
        assert await shop.check() == []

    async with make(segment_events=5, retention_s=0.0) as shop:
        for _ in range(3):
            await send(shop)
            await exact(shop)
            await shop.archive(timedelta(days=7))
            clock.advance(8 * 24 * HOUR)  # beyond retention and window: archived events leave the log
            await shop.archive(timedelta(days=7))
            await exact(shop)
            await shop.rollup()
        assert shop._components.pipeline.start_seq == len(sent)
    async with make() as shop:
        await exact(shop)


async def test_time_41_the_same_id_with_another_payload(make):
    """The first event counts, in any tier and with any difference; the second receipt has the seq of the first."""
    others = [
        {"event": "other"},
        {"event": "e", "userId": "thief"},
        {"event": "e", "timestamp": "2020-01-01T00:00:00Z"},
        {"event": "e", "properties": {"n": 2}},
        {"type": "identify", "userId": "x"},
    ]
    first = {"event": "e", "userId": "u", "properties": {"n": 1}, "messageId": "m"}
    rows = []
    async with make(segment_events=2) as shop:
        assert [receipt.status for receipt in await shop.batch([{"event": "before"}, first])] == ["stored"] * 2

        async def again():
            receipts = await shop.batch([other | {"messageId": "m"} for other in others])
            assert [(receipt.status, receipt.seq) for receipt in receipts] == [("duplicate", 1)] * len(others)
            rows.append((await shop.query("SELECT * EXCLUDE (properties), properties::VARCHAR FROM events")).rows)

        await again()
        await shop._components.pipeline.seal()
        await again()
        await shop.archive()
        await again()
    async with make() as shop:
        await again()
        assert shop.stats().totals == {"e": 1, "before": 1}
        assert await shop.check() == []
    assert rows == [rows[0]] * 4
    assert len(rows[0]) == 2


# 40


async def test_time_40_counters_ignore_the_wall_clock(make, clock):
    """Steps of the wall clock do not change the ttl of counters: it is measured by a monotonic clock."""
    async with make() as shop:
        shop.counters.incr("own", ttl=60)
        await shop.track("e", user_id="u")
        for step in (-YEAR, HOUR, 2 * YEAR, -HOUR):
            clock.step(step)
            clock.advance(10)
            assert (shop.counters.get("own"), shop.counters.count("active:*")) == (1, 1)
            assert shop.stats().last_minute == 1
        clock.advance(20)
        assert (shop.counters.get("own"), shop.stats().last_minute) == (0, 0)
        assert (shop.stats().last_hour, shop.stats().active) == (1, 1)
        clock.step(-YEAR)
        clock.advance(300)
        assert shop.stats().active == 0


# 42


async def test_time_42_jobs_that_raise_overrun_or_were_missed(tmp_path, clock):
    """A failed job is in check() and runs again; a slow one never runs twice at once; tracking goes on."""
    ran, gate = Counter(), asyncio.Event()

    class Busy(Analytics):
        from lakebed import every

        @every.hour
        async def failing(self):
            ran["failing"] += 1
            raise ValueError("no")

        @every.hour
        async def slow(self):
            ran["slow"] += 1
            await gate.wait()
            ran["slow is over"] += 1

    async with maker(tmp_path, clock)(Busy) as shop:
        runs = []
        for _ in range(3):
            clock.advance(HOUR)
            runs.append(asyncio.ensure_future(shop.run_due()))
            assert (await shop.track("e")).status == "stored"
        assert any("failing every hour failed" in problem.message for problem in await shop.check())
        assert ran["slow"] == 1
        gate.set()
        await asyncio.gather(*runs)
        await shop.run_due()
        assert ran["slow"] == ran["slow is over"] == 2, "what it passed over is made up for once"
    clock.advance(48 * HOUR)
    before = ran.copy()
    async with maker(tmp_path, clock)(Busy) as shop:
        pass
    assert ran["failing"] - before["failing"] == ran["slow"] - before["slow"] == 1, "48 missed moments, one run"


async def test_time_42_a_missed_job_runs_before_close(make, clock):
    """In a program that opens, runs one query and closes, close() waits for the due jobs.

    Once they were recorded as run, but failed with ObjectClosed: a weekly archive then waited for the next week.
    """
    async with make(segment_events=3, archive_window_s=0.0) as shop:
        await shop.batch([{"event": "e"}] * 10)
    for week in range(2):
        clock.advance(7 * 24 * HOUR)
        async with make(segment_events=3, archive_window_s=0.0) as shop:
            if week:
                assert shop.stats().watermark > 0, "the archive ran when it was due"
    async with make() as shop:
        assert await shop.check() == []
