"""Funnels of real shops against the plain model, and against ClickHouse's windowFunnel."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebed import Analytics
from tests.reports import ecom, funnel_model
from tests.reports.funnel_model import Plain
from tests.reports.questions import STATES
from tests.reports.report_cases import stages

pytestmark = pytest.mark.integration

RETAIL = Path(__file__).parents[2] / "examples" / "data" / "online_retail_2010-12.csv.gz"
STEPS = ("product_view", "add_to_cart", "cart", "purchase")
HOUR_US = 3_600_000_000


def named(name):
    return lambda event: event.event == name


@pytest.mark.parametrize("each", [2, pytest.param(1, marks=pytest.mark.slow)])
async def test_funnels_of_a_shop_equal_the_plain_model(tmp_path, each):
    """Visits of 60 people: each kind of funnel equals the plain model's, wherever the events and people are stored."""
    events = [item | {"type": "track", "anonymousId": None} for item in ecom.items(people=60)]
    plain = Plain([named(name) for name in STEPS], HOUR_US)
    questions = [
        ({}, plain),
        ({"exclude": ["search"]}, plain._replace(excluded=((named("search"), 1, 4),))),
        ({"order": "any"}, plain._replace(order="any")),
        ({"order": "strict"}, plain._replace(order="strict")),
        ({"allow_equal": True}, plain._replace(allow_equal=True)),
        (
            {"exclude": ["search"], "totals": True, "holding": "platform"},
            plain._replace(excluded=((named("search"), 1, 4),), holding="platform"),
        ),
    ]
    merges = [("user_0001", "user_0002"), ("user_0003", "user_0004")]
    states = stages(tmp_path, events, merges=merges, only=STATES, untrusted=(), segment_events=500)
    number = 0
    async for stage in states:
        number += 1
        for arguments, funnel in questions[number % each :: each]:
            labels = [f"any {at} of 4" for at in (1, 2, 3, 4)] if funnel.order == "any" else STEPS
            rows = await stage.ask("funnel", steps=list(STEPS), within="1h", **arguments)
            result = [
                tuple(round(value, 6) if isinstance(value, float) else value for value in row)[:6] for row in rows
            ]
            if "totals" in arguments:
                assert [row.total for row in rows] == funnel_model.totals(funnel, stage.events), stage.name
                assert rows[1].total > rows[1].people
            expected = [
                tuple(round(value, 6) if isinstance(value, float) else value for value in row)
                for row in funnel_model.rows(funnel, stage.events, labels)
            ]
            assert result == expected, (stage.name, arguments)
            assert result[2][2] > 0, (stage.name, arguments)


async def levels(shop, steps, within, **options):
    """The furthest step of each person."""
    result = await shop.funnel_people(steps, within, step=1, outcome="converted", limit=10_000, **options)
    return {row.person_id: row.step for row in result}


def window_funnel(path, table, mode, window, steps):
    """The furthest step of each person by ClickHouse, for a table `person, at, event`."""
    chdb = pytest.importorskip("chdb", reason="chDB comes with the extra `bench`: make bench installs it")
    pq.write_table(table, path)
    conditions = ", ".join(f"event = '{step}'" for step in steps)
    sql = (
        f"SELECT person, windowFunnel({window}{mode})(toUInt64(at), {conditions}) AS level "
        f"FROM file('{path}', Parquet) GROUP BY person HAVING level > 0"
    )
    return {person: int(level) for person, level in csv.reader(str(chdb.query(sql, "CSV")).splitlines())}


async def test_funnels_of_a_shop_equal_windowfunnel(tmp_path):
    """windowFunnel with `strict_increase` has our rule; without it, and with unique times, it has `allow_equal`."""
    rows = ecom.rows()
    async with Analytics("shop", root=tmp_path / "shop", headroom_bytes=0) as shop:
        await shop.batch(ecom.items())
        times_us = {
            row.message_id: row.us for row in await shop.query("SELECT message_id, epoch_us(timestamp) us FROM events")
        }
        times = [times_us[f"ecom-{number}"] // 1_000_000 for number in range(len(rows))]
        columns = {"person": [row["user_id"] for row in rows], "event": [row["event"] for row in rows]}
        for hours in (1, 24 * 7):
            expected = window_funnel(
                tmp_path / "a.parquet", pa.table(columns | {"at": times}), ", 'strict_increase'", hours * 3600, STEPS
            )
            assert await levels(shop, STEPS, f"{hours}h") == expected
            unique = [time * 100_000 + number for number, time in enumerate(times)]
            expected = window_funnel(
                tmp_path / "b.parquet", pa.table(columns | {"at": unique}), "", hours * 360_000_000 + 99_999, STEPS
            )
            assert await levels(shop, STEPS, f"{hours}h", allow_equal=True) == expected
            assert len(set(expected.values())) == len(STEPS)


async def test_funnels_of_real_orders_equal_windowfunnel(tmp_path):
    """For 42,000 lines of real orders: order, cancellation, order, in whole minutes of which many are equal."""
    with gzip.open(RETAIL, "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["CustomerID"]]
    names = ["Cancelled" if row["InvoiceNo"].startswith("C") else "Ordered" for row in rows]
    items = [
        {
            "event": name,
            "userId": row["CustomerID"],
            "timestamp": row["InvoiceDate"].replace(" ", "T") + "Z",
            "messageId": f"line-{number}",
        }
        for number, (row, name) in enumerate(zip(rows, names, strict=True))
    ]
    steps = ("Ordered", "Cancelled", "Ordered")
    async with Analytics("shop", root=tmp_path / "shop", headroom_bytes=0) as shop:
        for first in range(0, len(items), 5_000):
            await shop.batch(items[first : first + 5_000])
        await shop.archive()
        stored = await shop.query("SELECT user_id AS person, event, epoch(timestamp)::BIGINT AS at FROM events")
        expected = window_funnel(tmp_path / "a.parquet", stored.arrow(), ", 'strict_increase'", 14 * 86_400, steps)
        actual = await levels(shop, steps, "14d")
        # If both are in one minute, windowFunnel takes the order of that minute for the first step and forgets the
        # earlier order, after which the cancellation came.
        times = {name: {(row.person, row.at) for row in stored if row.event == name} for name in steps}
        torn = {person for person, _ in times["Ordered"] & times["Cancelled"]}
        assert {person for person in actual if actual[person] != expected[person]} <= torn
        assert actual.keys() == expected.keys()
        assert all(actual[person] >= expected[person] for person in torn & actual.keys())
        assert set(expected.values()) == {1, 2, 3}
