from __future__ import annotations

import asyncio
import math
import tempfile
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rollup_fixtures import HOUR, START, Log, as_dict, bucket, decimal_sum, event, expected, number, person

from lakebed.clock import from_us, to_us
from lakebed.errors import InvalidRollup, LogBehind, ObjectClosed
from lakebed.rollups.daily import DAILY_METRICS
from lakebed.rollups.hourly import HOURLY_EVENTS
from lakebed.rollups.rollup import Rollup


def _threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("lakebed-")]


REVENUE = Rollup(
    "revenue",
    by=["plan"],
    measures={
        "total": "sum(revenue)",
        "orders": "count()",
        "low": "min(revenue)",
        "high": "max(revenue)",
        "mean": "avg(revenue)",
        "middle": "quantile(revenue, 0.5)",
        "people": "distinct(person_id)",
        "units": "sum(quantity)",
        "least": "min(quantity)",
        "scores": "sum(score)",
        "first": "min(timestamp)",
        "last_name": "max(event)",
    },
    grain="day",
    timezone="Europe/Berlin",
    max_groups=2,
)
NAMES = Rollup("names", by=["event", "plan"], grain="month", timezone="America/New_York", max_groups=3)


def _numbers(events):
    return [found for one in events if (found := number(one, "revenue")) is not None]


def _median(events):
    values = sorted(_numbers(events))
    return values[max(math.ceil(0.5 * len(values)), 1) - 1] if values else None


def _mean(events):
    # Exact, then rounded once.
    from fractions import Fraction

    values = _numbers(events)
    return float(sum(map(Fraction, values)) / len(values)) if values else None


def _of(name, events):
    return [one["properties"][name] for one in events if name in one["properties"]]


COUNT = {"count": len}
REVENUE_MODEL = {
    "total": lambda events: math.fsum(_numbers(events)) if _numbers(events) else None,
    "orders": len,
    "low": lambda events: min(_numbers(events), default=None),
    "high": lambda events: max(_numbers(events), default=None),
    "mean": _mean,
    "middle": _median,
    "people": lambda events: len({person(one) for one in events} - {None}),
    "units": lambda events: decimal_sum(_of("quantity", events)),
    "least": lambda events: min((Decimal(str(v)) for v in _of("quantity", events)), default=None),
    "scores": lambda events: sum(_of("score", events)) if _of("score", events) else None,
    "first": lambda events: from_us(min(one["timestamp"] for one in events)),
    "last_name": lambda events: max((one["event"] for one in events if one["event"] is not None), default=None),
}

_properties = st.fixed_dictionaries(
    {},
    optional={
        "plan": st.sampled_from(["pro", "free", "a\0b", 'q"', "*", "", None, 7, True]),
        "revenue": st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(-1000, 1000).map(lambda x: round(x, 2)),
            st.integers(-(10**6), 10**6),
            st.sampled_from(["12.5", "many", "nan", "inf", None, True]),
        ),
        "quantity": st.decimals(-(10**20), 10**20, places=3).map(str),
        "score": st.integers(-(2**62), 2**62),
    },
)
_events = st.builds(
    lambda name, at, user, anonymous, properties: event(name, at=at, user=user, anonymous=anonymous, **properties),
    st.sampled_from(["Order", "View", "Ä", None]),
    st.one_of(
        st.integers(-30, 30).map(lambda hours: START + hours * HOUR),
        st.integers(START - 40 * 24 * HOUR, START + 24 * HOUR),
        st.integers(to_us(datetime(1950, 1, 1, tzinfo=UTC)), START),
    ),
    st.sampled_from([None, None, "u1", "u2", "a1"]),
    st.sampled_from([None, "a1", "a2"]),
    _properties,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=st.lists(_events, max_size=40),
    stops=st.lists(st.integers(0, 40), max_size=4),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
)
def test_rows_are_those_of_one_group_by_whatever_the_batches(events, stops, sizes):
    """Determinism: any batching, late and out-of-order events, NULL dimensions, the cap: equal to a plain dict."""

    async def run():
        with tempfile.TemporaryDirectory() as directory:
            log = Log(Path(directory) / "storage.db", events, [REVENUE, NAMES], sizes)
            async with log:
                for stop in [*sorted(min(stop, log.end) for stop in stops), log.end]:
                    await log.rollups.catch_up(stop)
                rows = {rollup.name: await log.rows(rollup.name) for rollup in log.rollups.rollups}
        assert as_dict(rows["hourly_events"], HOURLY_EVENTS) == expected(events, HOURLY_EVENTS, COUNT)
        daily = {"events": len, "dau": REVENUE_MODEL["people"]}
        assert as_dict(rows["daily_metrics"], DAILY_METRICS) == expected(events, DAILY_METRICS, daily)
        assert as_dict(rows["names"], NAMES) == expected(events, NAMES, COUNT)
        assert as_dict(rows["revenue"], REVENUE) == expected(events, REVENUE, REVENUE_MODEL)

    asyncio.run(run())


async def test_the_overflow_row_is_exact_and_does_not_depend_on_batches(tmp_path):
    """The groups with the lowest first seq are kept; all others are one `(other)` row, its measures exact."""
    events = [event(at=START + i, user=f"u{i % 7}", plan=plan, revenue=i) for i, plan in enumerate("abcdacbeabddc" * 3)]
    rollup = Rollup(
        "plans",
        by=["plan"],
        measures={"n": "count()", "total": "sum(revenue)", "high": "max(revenue)", "people": "distinct(user_id)"},
        grain="day",
        max_groups=2,
    )
    seen = []
    for i, sizes in enumerate([[1], [2, 5], [39]]):
        async with Log(tmp_path / f"{i}.db", events, [rollup], sizes) as log:
            await log.rollups.catch_up(log.end)
            seen.append({row["plan"]: row for row in await log.rows("plans")})
    others = [one for one in events if one["properties"]["plan"] not in "ab"]
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0]) == {"a", "b", "(other)"}
    assert seen[0]["(other)"] == {
        "date": date(2026, 3, 28),
        "plan": "(other)",
        "n": len(others),
        "total": sum(one["properties"]["revenue"] for one in others),
        "high": max(one["properties"]["revenue"] for one in others),
        "people": len({one["user_id"] for one in others}),
    }


async def test_a_real_other_is_a_row_of_its_own(tmp_path):
    """A dimension whose value is `(other)` is not mixed with the overflow, nor is one that looks like its key."""
    events = [event(at=START + i, plan=plan) for i, plan in enumerate(["(other)", "*", "c", "d", "(other)"])]
    rollup = Rollup("plans", by=["plan"], grain="day", max_groups=2)
    async with Log(tmp_path / "s.db", events, [rollup], [2]) as log:
        await log.rollups.catch_up(log.end)
        rows = sorted((row["plan"], row["count"]) for row in await log.rows("plans"))
    assert rows == [("(other)", 2), ("(other)", 2), ("*", 1)]


async def test_the_cap_is_a_setting_and_counts_each_bucket_alone(tmp_path):
    """Built-in rollups are bounded too, by rollup_max_groups in each of their hours."""
    events = [event(f"e{i}", at=START + (i % 2) * HOUR) for i in range(20)]
    async with Log(tmp_path / "s.db", events, [], [3], rollup_max_groups=4) as log:
        await log.rollups.catch_up(log.end)
        rows = await log.rows("hourly_events")
        assert [row["event"] for row in rows if row["hour"] == from_us(START)] == ["(other)", "e0", "e2", "e4", "e6"]
        assert sorted(row["count"] for row in rows) == [1] * 8 + [6] * 2


async def test_sums_are_exact_beyond_what_their_types_hold(tmp_path):
    """No sum overflows or stops a fold: a column whose sum is too large becomes a wider one."""
    big = [event(score=2**63 - 1, quantity="99999999999999999999999999999.999999999", revenue=1e308) for _ in range(3)]
    measures = {"i": "sum(score)", "d": "sum(quantity)", "f": "sum(revenue)", "mean": "avg(score)"}
    async with Log(tmp_path / "s.db", big[:1], [Rollup("r", measures=measures)], [2]) as log:
        await log.rollups.catch_up(1)
        (row,) = await log.rows("r")
        assert row["i"] == 2**63 - 1
        assert row["d"] == Decimal("99999999999999999999999999999.999999999")
        log.add(big[1:])
        await log.rollups.catch_up(3)
        table = await log.rollups.table("r")
        assert table.column("i").to_pylist() == [3 * (2**63 - 1)]
        assert table.column("f").to_pylist() == [math.inf]
        assert table.column("d").to_pylist() == [pytest.approx(3e29)]
        assert table.column("mean").to_pylist() == [float(2**63 - 1)]


async def test_types_of_public_columns(tmp_path):
    """A rollup without events has the columns and types that it has with events."""
    rollup = Rollup(
        "r",
        by=["plan", "score"],
        measures={
            "n": "count()", "i": "sum(score)", "d": "sum(quantity)", "f": "sum(x)", "a": "avg(x)", "p": "distinct(x)",
            "q": "quantile(x, 0.9)", "t": "max(seen_at)", "s": "min(event)", "b": "max(paid)", "m": "min(score)",
        },
        grain="month",
    )  # fmt: skip
    time, money = pa.timestamp("us", tz="UTC"), pa.decimal128(38, 9)
    kinds = [
        pa.date32(),
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.int64(),
        money,
        pa.float64(),
        pa.float64(),
        pa.int64(),
    ]
    kinds += [pa.float64(), time, pa.string(), pa.bool_(), pa.int64()]
    full = event(plan="pro", score=3, quantity=2.5, x="1.5", seen_at="2026-01-02T03:04:05Z", paid=True)
    async with Log(tmp_path / "s.db", [full, event(seen_at="infinity")], [rollup]) as log:
        empty = await log.rollups.table("r")
        await log.rollups.catch_up(log.end)
        table = await log.rollups.table("r")
    assert empty.schema == table.schema
    assert table.schema.names == ["month", "plan", "score", "n", "i", "d", "f", "a", "p", "q", "t", "s", "b", "m"]
    assert table.schema.types == kinds
    assert list(table.to_pylist()[0].values()) == [
        date(2026, 3, 1), "pro", "3", 1, 3, Decimal("2.5"), 1.5, 1.5, 1, 1.5,
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Order", True, 3,
    ]  # fmt: skip
    assert set(list(table.to_pylist()[1].values())[1:]) == {None, 1, 0, "Order"}


async def test_quantiles_stay_within_the_stated_rank_error(tmp_path):
    """Exact up to 200 values, merged or not; beyond it the rank is off by at most 1.33 %."""
    values = [float((i * 7919) % 5003) for i in range(5003)]
    events = [event(revenue=value, at=START + (i >= 199) * HOUR) for i, value in enumerate(values)]
    measures = {"p95": "quantile(revenue, 0.95)", "p0": "quantile(revenue, 0)", "p100": "quantile(revenue, 1)"}
    async with Log(tmp_path / "s.db", events, [Rollup("r", measures=measures)], [50, 7, 1000]) as log:
        await log.rollups.catch_up(log.end)
        few, many = await log.rows("r")
    first, rest = sorted(values[:199]), sorted(values[199:])
    assert (few["p0"], few["p95"], few["p100"]) == (first[0], first[math.ceil(0.95 * 199) - 1], first[-1])
    assert (many["p0"], many["p100"]) == (rest[0], rest[-1])
    assert abs(rest.index(many["p95"]) / len(rest) - 0.95) < 2 * 0.0133  # twice, so that one run in millions fails


async def test_where_chooses_events(tmp_path):
    """`where` sees base columns, promoted ones, properties and person_id; a comment at its end does no harm."""
    events = [event(user="a", score=1), event(anonymous="b", score=5), event("View", user="c", score=9), event(score=7)]
    where = "event = 'Order' AND score > 1 AND person_id IS NOT NULL -- mine"
    async with Log(tmp_path / "s.db", events, [Rollup("r", where=where), Rollup("none", where="false")]) as log:
        await log.rollups.catch_up(log.end)
        assert [row["count"] for row in await log.rows("r")] == [1]
        assert await log.rows("none") == []
        assert await log.rollups.checkpoint() == 4


async def test_a_where_that_duckdb_refuses_is_found_when_opening(tmp_path):
    """InvalidRollup from open(), with DuckDB's words, and nothing stored."""
    for where in ("nonsense = 1", "event =", "count(*) > 1"):
        log = Log(tmp_path / "s.db", [], [Rollup("r", where=where)])
        await log.storage.open()
        with pytest.raises(InvalidRollup) as caught:
            await log.rollups.open()
        assert caught.value.name == "r"
        assert await log.storage.definitions() == {}
        await log.rollups.close()
        await log.storage.close()
        assert _threads() == []


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


# Keeping up


async def test_catch_up_is_incremental_and_reads_once_for_all(tmp_path):
    """Each event is read once for all rollups at one checkpoint, and running again is a no-op."""
    events = [event(at=START + i) for i in range(10)]
    async with Log(tmp_path / "s.db", events, [REVENUE, NAMES], [4]) as log:
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
        one, other = (asyncio.create_task(log.rollups.catch_up(30)) for _ in range(2))
        while not log.reads:
            await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        await other
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
        before = await log.storage.definitions()
        await log.reopen([Rollup("a", by=["plan"], where="true"), Rollup("c")])
        after = await log.storage.definitions()
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
        assert len(await log.storage._fetch("SELECT 1 FROM rollup_groups WHERE rollup = ?", (after["a"].id,))) == 0


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
        async with Log(tmp_path / "s.db", events, [REVENUE], sizes) as log:
            await log.rollups.catch_up(log.end)
            seen.append([(await log.rollups.table(rollup.name)) for rollup in log.rollups.rollups])
        for file in tmp_path.iterdir():
            file.unlink()
    assert all(one.equals(other) for one, other in zip(*seen, strict=True))


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


# Answers


async def test_table_takes_a_half_open_range_of_buckets(tmp_path):
    """Buckets are chosen by their start: start_us is in, end_us is out."""
    events = [event(at=START + i * HOUR + 5) for i in range(-2, 3)]
    async with Log(tmp_path / "s.db", events, []) as log:
        await log.rollups.catch_up(log.end)
        hours = [row["hour"] for row in await log.rows("hourly_events", START - HOUR, START + HOUR)]
        assert hours == [from_us(START - HOUR), from_us(START)]
        assert len(await log.rows("hourly_events", START)) == 3
        assert len(await log.rows("hourly_events", None, START)) == 2


async def test_distinct_unites_buckets(tmp_path):
    """Weekly and monthly actives count each person once over the window's days."""
    day = 24 * HOUR
    midnight = to_us(datetime(2026, 3, 1, tzinfo=UTC))
    events = [event(at=midnight + d * day, user=f"u{(d * k) % 13}") for d in range(20) for k in range(4)]
    windows = [(midnight + d * day, midnight + (d + 7) * day) for d in range(-8, 20)]
    async with Log(tmp_path / "s.db", events, [REVENUE]) as log:
        await log.rollups.catch_up(log.end)
        found = await log.rollups.distinct("daily_metrics", "dau", windows)
        assert found == [
            len({one["user_id"] for one in events if start <= one["timestamp"] < end}) for start, end in windows
        ]
        assert await log.rollups.distinct("daily_metrics", "dau", []) == []
        assert await log.rollups.distinct("revenue", "people", [(0, START * 2)]) == [13]
        with pytest.raises(InvalidRollup):
            await log.rollups.distinct("daily_metrics", "events", windows)
        with pytest.raises(InvalidRollup):
            await log.rollups.distinct("hourly_events", "nothing", windows)


async def test_check_finds_lost_state_and_a_foreign_log(tmp_path):
    """check() compares what the built-in rollups hold with their checkpoints, and these with the log."""
    log = Log(tmp_path / "s.db", [event() for _ in range(5)], [])
    async with log:
        await log.rollups.catch_up(5)
        assert [problem.split(" has ")[0] for problem in await log.rollups.check(4)] == [
            "rollup hourly_events",
            "rollup daily_metrics",
        ]
        kept = await log.storage._fetch("SELECT rowid, state FROM rollup_groups")
        await log.storage._fetch("UPDATE rollup_groups SET state = '[4]' WHERE state = '[5]'")
        (problem,) = await log.rollups.check(5)
        assert "hourly_events holds 4 events" in problem
        for row, state in kept:
            await log.storage._fetch("UPDATE rollup_groups SET state = ? WHERE rowid = ?", (state, row))


async def test_times_at_the_ends_of_the_calendar(tmp_path):
    """An event of any year that can be stored is counted; none stops the fold."""
    ends = [to_us(datetime(1, 1, 1, tzinfo=UTC)), -1, 0, to_us(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))]
    zones = [
        Rollup(f"r{i}_{grain}", grain=grain, timezone=zone)
        for i, zone in enumerate(["UTC", "America/Los_Angeles", "Asia/Tokyo"])
        for grain in ("hour", "day", "month")
    ]
    async with Log(tmp_path / "s.db", [event(at=at) for at in ends], zones) as log:
        await log.rollups.catch_up(log.end)
        for rollup in zones:
            assert sum((await log.rollups.table(rollup.name)).column("count").to_pylist()) == 4
        rows = await log.rows("hourly_events")
        assert [row["hour"] for row in rows] == [bucket(at, "hour", "UTC") for at in ends]
