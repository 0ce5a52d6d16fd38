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

from lakebed.clock import from_us, to_us
from lakebed.errors import InvalidRollup
from lakebed.rollups.rollup import DAILY_METRICS, HOURLY_EVENTS, Rollup
from tests.rollups.rollup_fixtures import (
    HOUR,
    START,
    Log,
    as_dict,
    bucket,
    decimal_sum,
    event,
    expected,
    number,
    person,
)


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
    return [value for item in events if (value := number(item, "revenue")) is not None]


def _median(events):
    values = sorted(_numbers(events))
    return values[max(math.ceil(0.5 * len(values)), 1) - 1] if values else None


def _mean(events):
    # Exact, then rounded once.
    from fractions import Fraction

    values = _numbers(events)
    return float(sum(map(Fraction, values)) / len(values)) if values else None


def _of(name, events):
    return [item["properties"][name] for item in events if name in item["properties"]]


COUNT = {"count": len}
REVENUE_MODEL = {
    "total": lambda events: math.fsum(_numbers(events)) if _numbers(events) else None,
    "orders": len,
    "low": lambda events: min(_numbers(events), default=None),
    "high": lambda events: max(_numbers(events), default=None),
    "mean": _mean,
    "middle": _median,
    "people": lambda events: len({person(item) for item in events} - {None}),
    "units": lambda events: decimal_sum(_of("quantity", events)),
    "least": lambda events: min((Decimal(str(v)) for v in _of("quantity", events)), default=None),
    "scores": lambda events: sum(_of("score", events)) if _of("score", events) else None,
    "first": lambda events: from_us(min(item["timestamp"] for item in events)),
    "last_name": lambda events: max((item["event"] for item in events if item["event"] is not None), default=None),
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


@pytest.mark.integration
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.mark.integration
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
    others = [item for item in events if item["properties"]["plan"] not in "ab"]
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0]) == {"a", "b", "(other)"}
    assert seen[0]["(other)"] == {
        "date": date(2026, 3, 28),
        "plan": "(other)",
        "n": len(others),
        "total": sum(item["properties"]["revenue"] for item in others),
        "high": max(item["properties"]["revenue"] for item in others),
        "people": len({item["user_id"] for item in others}),
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
        assert await log.storage.stored_rollups() == {}
        await log.rollups.close()
        await log.storage.close()
        assert _threads() == []


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
        counts = await log.rollups.distinct("daily_metrics", "dau", windows)
        assert counts == [
            len({item["user_id"] for item in events if start <= item["timestamp"] < end}) for start, end in windows
        ]
        assert await log.rollups.distinct("daily_metrics", "dau", []) == []
        assert await log.rollups.distinct("revenue", "people", [(0, START * 2)]) == [13]
        days = {"name": "daily_metrics", "measure": "dau", "start_us": None, "end_us": midnight + 10 * day}
        assert await log.rollups.bitmaps(
            **days, compute=lambda bitmaps: [moment for moment, _ in bitmaps], max_bytes=9_999
        ) == [midnight + d * day for d in range(10)]
        assert await log.rollups.bitmaps(**days, compute=list, max_bytes=99) is None
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
        kept = await log.storage.fetch("SELECT rowid, state FROM rollup_groups")
        await log.storage.fetch("UPDATE rollup_groups SET state = '[4]' WHERE state = '[5]'")
        (problem,) = await log.rollups.check(5)
        assert "hourly_events has 4 events" in problem
        for row, state in kept:
            await log.storage.fetch("UPDATE rollup_groups SET state = ? WHERE rowid = ?", (state, row))


async def test_times_at_the_ends_of_the_calendar(tmp_path):
    """An event of any year that can be stored is counted; none stops the fold."""
    ends = [to_us(datetime(1, 1, 1, tzinfo=UTC)), -1, 0, to_us(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))]
    zones = [
        Rollup(f"r{i}_{grain}", grain=grain, timezone=zone)
        for i, zone in enumerate(["UTC", "America/Los_Angeles", "Asia/Tokyo", "Europe/Berlin"])
        for grain in ("hour", "day", "month")
    ]
    async with Log(tmp_path / "s.db", [event(at=at) for at in ends], zones) as log:
        await log.rollups.catch_up(log.end)
        for rollup in zones:
            assert sum(row["count"] for row in await log.rows(rollup.name)) == 4, "every bucket can be shown"
        rows = await log.rows("hourly_events")
        assert [row["hour"] for row in rows] == [bucket(at, "hour", "UTC") for at in ends]
