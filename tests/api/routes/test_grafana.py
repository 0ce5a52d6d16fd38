"""Grafana: the JSON data source over HTTP, and requests of the plug-in for ClickHouse to Analytics Engine's API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from lakebed import Analytics, Namespace, SystemClock
from lakebed.api import create_app
from lakebed.auth.keys import Keys

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

START = datetime(2024, 1, 13, 5, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
METHODS = ("GET", "POST", "PUT")
HITS = [(START + timedelta(seconds=97 * n), METHODS[n % 3], float(n * 7 % 50)) for n in range(60)]
RANGE = {
    "from": START.isoformat(),
    "to": (START + timedelta(hours=1)).isoformat(),
    "raw": {"from": "now-1h", "to": "now"},
}
ENGINE = "/client/v4/accounts/acc/analytics_engine/sql"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory):
    """A client, with a key, of an app over an object with sixty events. No test changes it."""
    root = tmp_path_factory.mktemp("root")
    async with Namespace(root, Analytics) as namespace:
        shop = namespace.get("shop")
        await shop.save_dataset("requests", {"event": "Hit", "blobs": ["method"], "doubles": ["ms"]})
        await shop.batch(
            {
                "type": "track",
                "event": "Hit",
                "userId": "u",
                "timestamp": at.isoformat(),
                "properties": {"method": m, "ms": ms},
            }
            for at, m, ms in HITS
        )
        _, token = Keys(root, SystemClock()).create("shop", "read")
        transport = httpx.ASGITransport(app=create_app(namespace), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            yield client
        assert await shop.check() == []


async def shown(http, *targets, **more):
    """The frames of a panel. The request has the fields that Grafana sends beside its targets."""
    body = {"panelId": 1, "range": RANGE, "interval": "30s", "intervalMs": 30000, "maxDataPoints": 550, "filters": []}
    named = [{"refId": "ABC"[number], **target} for number, target in enumerate(targets)]
    answer = await http.post("/grafana/query", json=body | {"targets": named} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_save_and_test(http):
    """200 for a key that may read, with the slash and without; an error for a wrong key."""
    for path in ("/grafana", "/grafana/"):
        assert (await http.get(path)).status_code == 200
        assert (await http.get(path, headers={"Authorization": "Bearer no"})).status_code == 401


async def test_metrics_and_their_fields(http):
    """Templates, reports and SQL are listed with their arguments; a field has its options."""
    metrics = {metric["value"]: metric for metric in (await http.post("/grafana/metrics", json={})).json()}
    assert {"sql", "template:busiest-hours", "report:segmentation"} <= metrics.keys()
    assert [field["name"] for field in metrics["sql"]["payloads"]] == ["sql", "format"]
    request = {"metric": "sql", "payload": {}, "name": "format"}
    options = (await http.post("/grafana/metric-payload-options", json=request)).json()
    assert [option["value"] for option in options] == ["table", "time_series"]


async def test_panels(http):
    """A statement as a table, and as a series for each text; hidden targets are not run."""
    sql = """
        SELECT toStartOfHour(timestamp) AS t, blob1 AS method, count() AS n FROM requests
        GROUP BY t, method ORDER BY t, method
    """
    table, *series = await shown(
        http,
        {"target": "sql", "payload": {"sql": sql}},
        {"target": "sql", "payload": {"sql": sql, "format": "time_series"}},
        {"target": "sql", "payload": {"sql": "nonsense"}, "hide": True},
    )
    counts = {}
    for at, method, _ in HITS:
        hour = int(at.replace(minute=0, second=0).timestamp() * 1000)
        counts[hour, method] = counts.get((hour, method), 0) + 1
    assert table == {
        "columns": [
            {"text": "t", "type": "time"},
            {"text": "method", "type": "string"},
            {"text": "n", "type": "number"},
        ],
        "rows": [[*key, n] for key, n in sorted(counts.items())],
        "type": "table",
    }
    assert series == [
        {
            "type": "timeseries",
            "target": name,
            "datapoints": [[n, hour] for (hour, method), n in sorted(counts.items()) if method == name],
        }
        for name in METHODS
    ]


async def test_all_panels_of_a_dashboard_at_once(http):
    """Queries above the limit wait for their turn: Grafana does not retry."""
    panels = [{"target": "sql", "payload": {"sql": f"SELECT count() + {n} AS n FROM requests"}} for n in range(5)]
    answers = await asyncio.gather(*(shown(http, panel) for panel in panels))
    assert [frame["rows"] for (frame,) in answers] == [[[len(HITS) + n]] for n in range(5)]


async def test_the_range_of_the_dashboard(http):
    """A template and a report count its events, unless their payload has another range."""
    within = sum(START <= at < START + timedelta(hours=1) for at, _, _ in HITS)
    report = {"target": "report:segmentation", "payload": {"arguments": '{"events": ["Hit"]}'}}
    other = {
        "target": "report:segmentation",
        "payload": {"arguments": {"events": ["Hit"], "start": "2024-01-01", "end": "2024-02-01"}},
    }
    template = {"target": "template:events-by-name", "payload": {"limit": "5"}}
    first, second, third = await shown(http, report, other, template)
    assert [sum(row[-1] for row in table["rows"]) for table in (first, second)] == [within, len(HITS)]
    assert [row[:3] for row in third["rows"]] == [["Hit", within, 1]]


async def test_variables(http):
    """The first column of a statement, or text and value of two."""
    sql = "SELECT DISTINCT blob1 FROM requests ORDER BY blob1"
    response = await http.post("/grafana/variable", json={"payload": {"target": sql}, "range": RANGE})
    assert response.json() == [{"__text": method, "__value": method} for method in METHODS]
    payload = {"target": "sql", "sql": "SELECT lower(blob1) AS x, blob1 FROM requests GROUP BY blob1 ORDER BY blob1"}
    response = await http.post("/grafana/variable", json={"payload": payload})
    assert response.json()[0] == {"__text": "get", "__value": "GET"}


async def test_invalid_queries_are_400(http):
    """With the reason, which Grafana shows on the panel."""
    for targets, message in (
        (None, "targets"),
        ([{"target": "template:none"}], "There is no metric"),
        ([{"target": "sql", "payload": 5}], "The payload must be a JSON object"),
        ([{"target": "sql", "payload": "{"}], "not JSON"),
        ([{"target": "sql", "payload": {"sql": "SELECT blob21 FROM requests"}}], "blob21"),
        ([{"target": "sql", "payload": {"sql": "SHOW TABLES", "format": "time_series"}}], "a column of times"),
        ([{"target": "report:segmentation", "payload": {"arguments": {"colour": 1}}}], "colour"),
        ([{"target": "sql"}] * 21, "at most 20"),
    ):
        refused = await http.post("/grafana/query", json={} if targets is None else {"targets": targets})
        assert refused.status_code == 400, refused.text
        assert message in refused.json()["error"]["message"]


BUCKET = "(intDiv(toUInt32(timestamp), 600) * 600) * 1000"
FILTER = "timestamp >= toDateTime(1705122000) AND timestamp <= toDateTime(1705125600)"


async def test_the_plug_in_for_clickhouse(http):
    """Its requests are answered in the form that it reads: its test, time zone, menus, expanded macros."""

    async def asked(sql, *, post=False):
        # The plug-in sends a slash before the parameters, and FORMAT JSON after the statement.
        if post:
            answer = await http.post(ENGINE, content=f"{sql} FORMAT JSON")
        else:
            answer = await http.get(
                f"{ENGINE}/?query={quote(f'{sql} FORMAT JSON')}&database=default&add_http_cors_header=1"
            )
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert (await asked("SELECT 1"))["data"] == [{"1": 1}]
    zone = await http.post(ENGINE, content="SELECT timezone() FORMAT JSON;")
    assert zone.json()["data"] == [{"timezone()": "Etc/UTC"}]
    assert (await asked("SELECT name FROM system.databases ORDER BY name"))["data"] == [{"name": "default"}]
    tables = await asked("SELECT name FROM system.tables WHERE database = 'default' ORDER BY name")
    assert tables["data"] == [{"name": "requests"}]
    times = await asked(
        "SELECT name FROM system.columns WHERE database = 'default' AND table = 'requests' AND "
        "(substring(type,1,8) = 'DateTime' OR substring(type,10,8) = 'DateTime')ORDER BY name"
    )
    assert times["data"] == [{"name": "timestamp"}]
    for post in (False, True):
        result = await asked(
            f"SELECT {BUCKET} as t, blob1 AS label, SUM(_sample_interval * double1) / SUM(_sample_interval) AS average"
            f" FROM default.requests WHERE {FILTER} AND 1 GROUP BY label, t ORDER BY t, label",
            post=post,
        )
        groups = {}
        for at, method, ms in HITS:
            if at <= START + timedelta(hours=1):
                groups.setdefault((int(at.timestamp()) // 600 * 600_000, method), []).append(ms)
        assert [tuple(row.values()) for row in result["data"]] == [
            (*key, pytest.approx(sum(values) / len(values))) for key, values in sorted(groups.items())
        ]
        # The plug-in takes the column t as the time only if its type is UInt64.
        assert [column["type"] for column in result["meta"]] == ["UInt64", "String", "Float64"]
    by_minute = await asked(
        "SELECT (intDiv(toUInt32(timestamp) * 1000, 60000) * 60000) as t, count() FROM requests"
        f" WHERE {FILTER} GROUP BY t ORDER BY t"
    )
    assert by_minute["data"][0] == {"t": START_MS, "count()": 1}
    unknown = await http.get(f"{ENGINE}/?query={quote('SELECT name FROM system.users FORMAT JSON')}")
    assert (unknown.status_code, unknown.text) == (422, "Input was invalid: unknown table: system.users")
