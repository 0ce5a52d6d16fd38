"""The event API of the real-time platform: its requests and its answers keep their form."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from lakebed import Analytics, ManualClock
from lakebed.api import create_app
from tests.api.socket_server import call, served

pytestmark = pytest.mark.integration

PLATFORM = {
    "event": "api.request",
    "userId": "ann",
    "organizationId": "acme",
    "sessionId": "s1",
    "timestamp": "2026-01-05T10:30:00Z",
    "properties": {"method": "GET", "path": "/api/users"},
    "performance": {"duration": 0, "statusCode": 200},
    "usage": {"quantity": "1500.25", "unit": "tokens", "sku": "ai-text"},
}
COLUMNS = "event, user_id, organization_id, session_id, method, path, duration_ms, status_code, quantity, unit, sku"
RANGE = {"start": "2026-01-01", "end": "2026-04-01"}


@pytest.fixture
async def tom(tmp_path):
    clock = ManualClock(datetime(2026, 4, 1, tzinfo=UTC))
    async with Analytics("tom", root=tmp_path, clock=clock) as analytics:
        yield analytics
        assert await analytics.check() == []


@pytest.fixture
async def http(tom):
    transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http_client:
        yield http_client


async def test_an_event_of_the_platform(http, tom):
    """Each part becomes a promoted property, a duration of 0 too; the answer is the platform's, with a receipt."""
    answer = await http.post("/events", json=PLATFORM)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["success"], body["accepted"], body["receipt"]["status"]) == (True, 1, "stored")
    [row] = (await tom.query(f"SELECT {COLUMNS}, timestamp::VARCHAR FROM events")).rows
    assert [str(value) for value in row][:10] == [
        "api.request", "ann", "acme", "s1", "GET", "/api/users", "0.0", "200", "1500.250000000", "tokens",
    ]  # fmt: skip
    assert (row[10], row[11]) == ("ai-text", "2026-01-05 10:30:00+00")


async def test_a_cloud_event(http, tom):
    """Type, subject, time and data; the same id of the same source again is a duplicate."""
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed", "subject": "ann"}
    event |= {"time": "2026-01-05T10:30:00Z", "data": {"total": 5}}
    statuses = [(await http.post("/events", json=event)).json()["receipt"]["status"] for _ in range(2)]
    assert statuses == ["stored", "duplicate"]
    [row] = (await tom.query("SELECT event, user_id, message_id, properties, context FROM events")).rows
    assert tuple(row)[:3] == ("order.placed", "ann", "/shop/7")
    assert json.loads(row[3]) == {"total": 5}
    assert json.loads(row[4])["cloudevent"]["specversion"] == "1.0"


async def test_an_invalid_event_is_refused_and_kept(http, tom):
    """400 with the reason, and a dead letter."""
    for body in (b'{"userId":"ann"}', b"{", b"[]"):
        answer = await http.post("/events", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
    assert len(await tom.dead_letters()) == 3


async def test_a_batch(http, tom):
    """Each rejected event has its index and reason and is kept; the others are stored."""
    events = [PLATFORM, {"userId": "ann"}, 7, {"event": "b", "usage": "much", "performance": {"duration": "x"}}]
    for body in ({"events": events}, events):
        result = (await http.post("/events/batch", json=body)).json()
        assert (result["success"], result["accepted"], result["rejected"]) == (False, 2, 2)
        assert [error["index"] for error in result["errors"]] == [1, 2]
        assert all(error["reason"] for error in result["errors"])
    assert len(await tom.dead_letters()) == 4
    assert (await http.post("/events/batch", json={"events": []})).json() == {
        "success": True, "accepted": 0, "rejected": 0, "errors": [],
    }  # fmt: skip
    for wrong in (b"{}", b'{"events":1}', b"[", b"7"):
        assert (await http.post("/events/batch", content=wrong)).status_code == 400
    assert len(await tom.dead_letters()) == 8


async def filled(http):
    """Requests around the borders of weeks and months."""
    events = []
    for number, timestamp in enumerate(
        ["2026-01-04T23:59:59Z", "2026-01-05T00:00:00Z", "2026-01-11T12:00:00Z", "2026-01-31T23:00:00Z",
         "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"]
    ):  # fmt: skip
        event = PLATFORM | {
            "timestamp": timestamp,
            "messageId": str(number),
            "userId": "ann" if number % 2 else "o'neill",
        }
        events.append(event | {"performance": {"duration": number * 100, "statusCode": 500 if number == 2 else 200}})
    answer = await http.post("/events/batch", json={"events": events})
    assert answer.json()["accepted"] == len(events)


async def test_weeks_begin_on_monday_and_months_are_real(http):
    """The platform's own weeks began on Thursday, and its months had 30 days."""
    await filled(http)
    for grain, expected in (
        ("month", [("2026-01-01T00:00:00Z", 4), ("2026-02-01T00:00:00Z", 2), ("2026-03-01T00:00:00Z", 1)]),
        ("week", [("2025-12-29T00:00:00Z", 1), ("2026-01-05T00:00:00Z", 2), ("2026-01-26T00:00:00Z", 2),
                  ("2026-02-23T00:00:00Z", 2)]),
    ):  # fmt: skip
        result = (await http.post("/query", json=RANGE | {"groupBy": grain})).json()
        assert [(row["timestamp"], row["count"]) for row in result["data"]] == expected
        assert result["meta"] == RANGE | {"count": len(expected), "hasMore": False}


async def test_filters_metrics_and_pages(http):
    """Values are parameters, whatever quotes they have; `hasMore` is true while there are more rows."""
    await filled(http)
    request = RANGE | {"groupBy": "month", "metrics": ["users", "p50_duration", "error_rate"]}
    [row] = (await http.post("/query", json=request | {"limit": 1})).json()["data"]
    assert (row["users"], row["p50_duration"], row["error_rate"]) == (2, 150.0, 0.25)
    first = (await http.post("/query", json=request | {"limit": 2})).json()
    second = (await http.post("/query", json=request | {"limit": 2, "offset": 2})).json()
    assert (first["meta"]["hasMore"], second["meta"]["hasMore"]) == (True, False)
    assert (len(first["data"]), len(second["data"])) == (2, 1)
    for value, count in (("o'neill", 4), ("' OR true --", 0)):
        result = (await http.post("/query", json=request | {"userId": value})).json()
        assert sum(row["count"] for row in result["data"]) == count


@pytest.mark.parametrize(
    "wrong", [{"groupBy": "year"}, {"metrics": ["count(*)"]}, {"start": "soon"}, {"limit": 0}, {"sort": 1}, {"end": 5}]
)
async def test_invalid_queries_are_400(http, tom, wrong):
    """With the reason."""
    await tom.track("x")
    answer = await http.post("/query", json=RANGE | wrong)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_performance_in_the_platforms_names(http):
    """By month and of one path; a path is a value, whatever quotes it has."""
    await filled(http)
    result = (await http.post("/metrics/performance", json=RANGE | {"groupBy": "month", "path": "/api/users"})).json()
    january = result["data"][0]
    assert january["timestamp"] == "2026-01-01T00:00:00Z"
    assert (january["count"], january["p50_duration"], january["error_rate"]) == (4, 150.0, 0.25)
    assert january["p95_duration"] == pytest.approx(285)
    response = await http.post("/metrics/performance", json=RANGE | {"path": "' OR true --"})
    assert response.json()["data"] == []


def test_over_a_socket(tmp_path):
    """A real server: an event in, the query, the performance and a template out."""
    app = create_app(Analytics("tom", root=tmp_path))
    with served(app) as port:
        assert call(port, "/events", json.dumps(PLATFORM).encode())[1]["accepted"] == 1
        assert call(port, "/events/batch", json.dumps({"events": [PLATFORM]}).encode())[1]["accepted"] == 1
        body = json.dumps(RANGE).encode()
        assert call(port, "/query", body)[1]["data"][0]["count"] == 2
        assert call(port, "/metrics/performance", body)[1]["data"][0]["count"] == 2
        assert call(port, "/templates/events-by-name?limit=5")[1]["rows"][0][:2] == ["api.request", 2]
        assert len(call(port, "/templates")[1]) >= 23
