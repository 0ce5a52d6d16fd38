"""/metrics: the numbers are those of the events and requests, and only some keys and the token read them."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


def samples(text):
    """Every sample by name and labels; each family is there once."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_numbers_of_events_and_requests(tmp_path):
    """received = stored + duplicate + rejected; groups, syncs, questions, lag, bytes; requests by route and status."""
    async with Analytics("tom", root=tmp_path) as tom, client(create_app(tom)) as http:
        await http.post("/track/batch", json=[{"event": "a", "messageId": "1"}, {"event": ""}, {"event": "b"}])
        await http.post("/track", json={"event": "a", "messageId": "1"})
        await http.post("/track", content=b"{")
        for n in range(20):
            await http.get(f"/nope/{n}")
            await http.request("BREW", "/stats")
        await tom.query("SELECT 1")
        response = await http.get("/metrics")
        assert await tom.check() == []
    assert response.headers["content-type"].startswith("text/plain; version=")
    values = samples(response.text)
    assert values["lakebed_events_received_total",] == 5
    events = [values["lakebed_events_total", status] for status in ("stored", "duplicate", "rejected")]
    assert events == [2, 1, 2]
    assert values["lakebed_dead_letters",] == 2
    assert values["lakebed_commit_group_events_sum",] == 2
    assert values["lakebed_commit_sync_seconds_count",] == 1
    assert values["lakebed_query_seconds_count",] == 1
    assert values["lakebed_consumer_lag_events", "archive"] == 2
    assert values["lakebed_disk_free_bytes",] > 0
    assert values["lakebed_objects_awake",] == 1
    assert values["lakebed_problems",] == 0
    assert values["lakebed_http_requests_total", "POST", "/track", "200"] == 1
    assert values["lakebed_http_requests_total", "POST", "/track", "400"] == 1
    assert values["lakebed_http_requests_total", "GET", "none", "404"] == 20  # no client can make up new series
    assert values["lakebed_http_requests_total", "other", "/stats", "405"] == 20
    assert values["lakebed_http_request_seconds_count", "/track"] == 2
    assert values["lakebed_http_received_bytes_total",] > 50


async def test_openmetrics_if_the_client_accepts_it(tmp_path):
    """The same numbers in OpenMetrics' format, which its parser reads."""
    async with Analytics("tom", root=tmp_path) as tom, client(create_app(tom)) as http:
        response = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "lakebed_events" in {family.name for family in parse_openmetrics(response.text)}


async def test_totals_never_fall(tmp_path):
    """An object's counts stay in the sums when it is closed and reopened; a scrape opens none."""
    async with Namespace(tmp_path, Analytics) as namespace, client(create_app(namespace)) as http:
        for awake in (1, 0, 1):
            if awake:
                await http.post("/track", json={"event": "a"})
            else:
                await namespace.pool.sleep("default")
            values = samples((await http.get("/metrics")).text)
            assert values["lakebed_objects_awake",] == awake
            assert namespace.awake() == ["default"] * awake
        assert values["lakebed_events_received_total",] == 2
        assert values["lakebed_commit_sync_seconds_count",] == 2


async def test_access(tmp_path):
    """With keys: the token gives the sums, a read key only its own object's numbers, other requests nothing."""
    keys = Keys(tmp_path, SystemClock())
    _, write = keys.create("tom", "write")
    _, read = keys.create("tom", "read")
    _, sams = keys.create("sam", "write")
    async with Namespace(tmp_path, Analytics) as namespace:
        app = create_app(namespace, metrics_token="watcher")  # noqa: S106 - a test's
        async with client(app) as http:
            for key in (write, sams, sams):
                await http.post("/track", json={"event": "a"}, headers={"authorization": f"Bearer {key}"})

            async def asked(token):
                return await http.get("/metrics", headers={"authorization": f"Bearer {token}"} if token else {})

            assert [(await asked(token)).status_code for token in (None, "wrong", write)] == [401, 401, 403]
            every, own = [samples((await asked(token)).text) for token in ("watcher", read)]
    assert every["lakebed_events_received_total",] == 3
    assert own["lakebed_events_received_total",] == 1
    assert not [key for key in own if key[0].startswith(("lakebed_http", "lakebed_disk", "lakebed_objects"))]


@pytest.mark.parametrize("token", [None, ""])
async def test_an_empty_token_gives_no_access(tmp_path, token):
    """If no metrics token is configured."""
    Keys(tmp_path, SystemClock()).create("tom", "write")
    async with Namespace(tmp_path, Analytics) as namespace, client(create_app(namespace, metrics_token=token)) as http:
        for header in ("Bearer ", "Bearer", "Bearer None"):
            assert (await http.get("/metrics", headers={"authorization": header})).status_code == 401
