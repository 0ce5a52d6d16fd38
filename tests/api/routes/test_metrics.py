"""Reads: the answers of an object's methods, and parameters that are refused with the allowed values."""

from __future__ import annotations

import httpx
import pytest

from lakebed import Analytics
from lakebed.api import create_app

pytestmark = pytest.mark.integration

EVENTS = [
    {"event": event, "userId": user, "timestamp": f"2026-01-{day:02}T{hour:02}:30:00Z", "properties": {"revenue": 1.5}}
    for event, user, day, hour in (
        ("A", "ann", 1, 0),
        ("B", "bob", 1, 5),
        ("A", "ann", 2, 5),
        ("A", "eve", 9, 7),
    )
]


@pytest.fixture
async def http(tmp_path):
    async with Analytics("tom", root=tmp_path) as tom:
        await tom.batch(EVENTS)
        transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            client.tom = tom
            yield client
        assert await tom.check() == []


async def rows(http, path):
    response = await http.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_actives(http):
    """Days, weeks and months of people, over a range or the last days, as the object itself answers."""
    january = "start=2026-01-01&end=2026-01-09"
    days = await rows(http, f"/dau?{january}")
    assert days[:2] == [
        {"date": "2026-01-01", "dau": 2, "events": 2},
        {"date": "2026-01-02", "dau": 1, "events": 1},
    ]
    assert len(days) == 9
    assert (await rows(http, f"/wau?{january}"))[-1] == {"date": "2026-01-09", "wau": 1, "events": 1}
    assert (await rows(http, f"/mau?{january}"))[-1] == {"date": "2026-01-09", "mau": 3, "events": 4}
    assert len(await rows(http, "/wau?days=3&max_staleness=5")) == 3
    assert (await rows(http, "/dau?days=2&end=2026-01-02"))[0]["dau"] == 2


async def test_answers_have_their_tiers_and_time(http):
    """Tiers, the covered events and the duration are in the headers; `as_of` answers from raw events."""
    response = await http.get("/dau?days=9&end=2026-01-09")
    assert (response.headers["lakebed-tiers"], response.headers["lakebed-seq"]) == ("L2", "0-4")
    assert response.headers["server-timing"].startswith("answer;dur=")
    now_us = http.tom.clock.now_us()
    await http.tom.track("Late", user_id="zed", timestamp="2026-01-09")
    moment = f"{now_us // 1_000_000 - 3600}"
    assert (await http.get(f"/dau?end=2026-01-09&as_of={moment}")).json()["error"]["code"] == "INVALID_AS_OF"
    past = await http.get("/dau?end=2026-01-09&days=1&as_of=2026-01-10T00:00:00Z")
    assert past.json() == [{"date": "2026-01-09", "dau": 0, "events": 0}]
    assert (await rows(http, "/dau?end=2026-01-09&days=1"))[0]["dau"] == 2


async def test_timeseries(http):
    """Counts, measures and splits of a range, half open."""
    two_days = "start=2026-01-01&end=2026-01-03&grain=day"
    assert await rows(http, f"/timeseries?{two_days}") == [
        {"time": "2026-01-01T00:00:00Z", "value": 2},
        {"time": "2026-01-02T00:00:00Z", "value": 1},
    ]
    assert [row["value"] for row in await rows(http, f"/timeseries?{two_days}&event=A&measure=sum(revenue)")] == [
        1.5,
        1.5,
    ]
    split = await rows(http, f"/timeseries?{two_days}&by=event&by=user_id")
    assert [(row["event"], row["user_id"], row["value"]) for row in split] == [
        ("A", "ann", 1),
        ("B", "bob", 1),
        ("A", "ann", 1),
    ]
    assert len(await rows(http, "/timeseries?start=2026-01-01&end=2026-01-02")) == 24


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dau?day=7", "it takes days, start, end"),
        ("/stats?days=7", "it takes none"),
        ("/dau?days=0", "whole number from 1"),
        ("/dau?days=7&days=8", "given twice"),
        ("/dau?days=7&start=2026-01-01", "not both"),
        ("/dau?start=yesterday", "is not an ISO 8601 time"),
        ("/dau?start=2026-01-02&end=2026-01-01", "lies after `end`"),
        ("/dau?max_staleness=nan", "number of seconds"),
        ("/dau?as_of=2999-01-01", "ask without as_of"),
        ("/timeseries", "`start` and `end` are needed"),
        ("/timeseries?start=2026-01-01&end=2026-01-02&grain=year", "Use one of minute, hour, day, week, month"),
        ("/timeseries?start=2026-01-01&end=2026-01-02&measure=1;drop", "Use count, people, sum(x)"),
        ("/timeseries?start=2026-01-01&end=2026-01-02&where=1=1", "no parameter 'where'"),
        ("/timeseries?start=2026-01-01&end=2026-01-02&by=time", "`time` and `value` are taken"),
        ("/timeseries?start=2026-01-01&end=2026-01-02" + "&by=a" * 6, "at most 5"),
    ],
)
async def test_invalid_parameters_are_400(http, path, message):
    """In the form of all errors, with the allowed values."""
    response = await http.get(path)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


async def test_a_range_too_long_is_refused(http):
    """A series with more rows than a result may have is 422 before anything is computed."""
    response = await http.get("/timeseries?start=0001-01-01&end=9999-01-01&grain=minute")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "QUERY_TOO_LARGE")


async def test_tiers(http):
    """The contents of each tier, before and after archiving; the ids of snapshots survive JavaScript."""
    tiers = await rows(http, "/tiers")
    assert tiers["log"] | {"tail_bytes": 0} == {
        "first_seq": 0,
        "next_seq": 4,
        "segments": 0,
        "sealed_bytes": 0,
        "tail_events": 4,
        "tail_bytes": 0,
        "pending": 0,
    }
    assert {consumer["name"]: consumer["lag"] for consumer in tiers["consumers"]} == {
        "archive": 4,
        "identity": 4,
        "rollup:daily_metrics": 4,
        "rollup:hourly_events": 4,
    }
    assert tiers["archive"]["watermark"] == 0
    assert (tiers["first_day"], tiers["last_day"]) == (None, None)
    assert tiers["disk"]["free"] > tiers["disk"]["headroom"]
    assert tiers["counters"]["keys"] > 0
    await http.tom.archive()
    await http.tom.rollup()
    tiers = await rows(http, "/tiers")
    assert {consumer["lag"] for consumer in tiers["consumers"]} == {0}
    assert tiers["archive"] | {"bytes": 0, "snapshots": []} == {
        "watermark": 4,
        "files": 3,
        "rows": 4,
        "bytes": 0,
        "snapshots": [],
        "snapshots_kept": 1,
        "trouble": "",
    }
    (snapshot,) = tiers["archive"]["snapshots"]
    assert isinstance(snapshot["id"], str)
    assert (snapshot["watermark"], snapshot["operation"], snapshot["rows"]) == (4, "append", 4)
    assert (tiers["first_day"], tiers["last_day"]) == ("2026-01-01", "2026-01-09")
    assert tiers["storage_bytes"] > 0
