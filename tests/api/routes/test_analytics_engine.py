"""Analytics Engine's SQL API over HTTP: mappings, data points, statements, formats, refusals."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from lakebed import Analytics
from lakebed.api import create_app

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SQL = "/client/v4/accounts/acc/analytics_engine/sql"
POINT = "/client/v4/accounts/acc/analytics_engine/weather"


@asynccontextmanager
async def opened(root):
    """A client of an app over an object with three requests and a mapping for them."""
    async with Analytics("shop", root=root) as shop:
        for minute, (method, duration_ms) in enumerate((("GET", 10), ("POST", 30), ("GET", 20))):
            properties = {"method": method, "duration_ms": duration_ms, "organization_id": "o'1"}
            await shop.track("api.request", properties, timestamp=f"2024-01-13T05:0{minute}:00.7Z")
        transport = httpx.ASGITransport(app=create_app(shop), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            client.shop = shop
            mapping = {"event": "api.request", "index1": "organization_id", "blobs": ["method"]}
            response = await client.put("/datasets/requests", json=mapping | {"doubles": ["duration_ms"]})
            assert response.status_code == 200, response.text
            yield client
        assert await shop.check() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory):
    """Shared by the tests that read, and those that add what the others do not see."""
    async with opened(tmp_path_factory.mktemp("shared")) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path):
    """For a test alone."""
    async with opened(tmp_path) as client:
        yield client


async def test_the_form_of_an_answer(http):
    """Columns have ClickHouse's types and times its form; the body may be of any content type."""
    sql = "SELECT timestamp, index1, blob1, blob20, double1, _sample_interval FROM requests ORDER BY timestamp LIMIT 1"
    for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        answer = await http.post(SQL, content=sql, headers={"Content-Type": kind})
        assert answer.json() == {
            "meta": [
                {"name": "timestamp", "type": "DateTime"},
                {"name": "index1", "type": "String"},
                {"name": "blob1", "type": "String"},
                {"name": "blob20", "type": "String"},
                {"name": "double1", "type": "Float64"},
                {"name": "_sample_interval", "type": "UInt32"},
            ],
            "data": [
                {
                    "timestamp": "2024-01-13 05:00:00",
                    "index1": "o'1",
                    "blob1": "GET",
                    "blob20": "",
                    "double1": 10.0,
                    "_sample_interval": 1,
                }
            ],
            "rows": 1,
        }


async def test_formats(http):
    """JSON, a line for each row, or tabs; also by GET, as Grafana requests them."""
    sql = "SELECT blob1 AS m, count() AS n FROM requests GROUP BY m ORDER BY m FORMAT "
    assert (await http.get(SQL, params={"query": sql + "JSON"})).json()["data"] == [
        {"m": "GET", "n": 2},
        {"m": "POST", "n": 1},
    ]
    lines = (await http.post(SQL, content=sql + "JSONEachRow")).text.splitlines()
    assert [json.loads(line) for line in lines] == [{"m": "GET", "n": 2}, {"m": "POST", "n": 1}]
    assert (await http.post(SQL, content=sql + "TabSeparated")).text == "GET\t2\nPOST\t1\n"
    response = await http.get(SQL, params={"query": sql + "TabSeparated", "as_of": "2024-01-13T06:00:00Z"})
    assert (response.status_code, response.text) == (200, "")


async def test_columns_without_an_alias(http):
    """Their name is their expression as written."""
    expressions = [
        "count()",
        "if(count() > 1, 'a', 'b')",
        "floor(max(double1), 1)",
        "SUM(double1)",
        "true",
        "substring('ab', 2)",
    ]
    answer = await http.post(SQL, content=f"SELECT {', '.join(expressions)} FROM requests")
    assert [column["name"] for column in answer.json()["meta"]] == expressions


async def test_as_of(http):
    """Later events are not included; an invalid time is refused as everywhere."""
    for as_of, names in (("2024-01-13", []), (datetime.now(UTC).isoformat(), ["requests"])):
        response = await http.post(SQL, params={"as_of": as_of}, content="SHOW TABLES")
        assert [row["dataset"] for row in response.json()["data"]] == names
    for as_of in ("yesterday", "2999-01-01"):
        refused = await http.post(SQL, params={"as_of": as_of}, content="SHOW TABLES")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_AS_OF")


async def test_data_points_are_a_table_without_a_mapping(fresh):
    """Points of a dataset, written by HTTP or by Python, are read from the table of its name."""
    point = {"indexes": ["a"], "blobs": ["Paris", None], "doubles": [1.5, 2]}
    assert (await fresh.post(POINT, json=[point, {}])).json() == {"success": True, "written": 2}
    await fresh.shop.write_data_point("weather", blobs=["Rome"], doubles=[3])
    sql = "SELECT index1, blob1, blob2, double1, double3 FROM weather WHERE blob1 > '' ORDER BY blob1"
    assert (await fresh.post(SQL, content=f"{sql} FORMAT TabSeparated")).text == "a\tParis\t\t1.5\t0\n\tRome\t\t3\t0\n"
    tables = (await fresh.post(SQL, content="SHOW TABLES")).json()["data"]
    assert [row["dataset"] for row in tables] == ["requests", "weather"]
    assert (await fresh.post(SQL, content="SHOW TIMEZONE FORMAT TabSeparated")).text == "Etc/UTC\n"
    assert {"timezone": "Europe/Berlin"} in (await fresh.post(SQL, content="SHOW TIMEZONES")).json()["data"]


async def test_a_mapping_is_shown_and_deleted(fresh):
    """Its table then has data points only; a mapping that does not exist is 404."""
    dataset = (await fresh.get("/datasets/requests")).json()
    assert (dataset["name"], dataset["version"], dataset["mapping"]["event"]) == ("requests", 1, "api.request")
    assert (await fresh.delete("/datasets/requests")).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await fresh.request(method, "/datasets/requests")).status_code == 404
    assert (await fresh.post(SQL, content="SHOW TABLES")).json()["data"] == []


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({"indexes": ["a", "b"]}, "indexes: maximum of 1 supported, there are 2"),
        ({"indexes": ["é" * 49]}, "indexes: maximum of 96 bytes supported, there are 98"),
        ({"blobs": ["x"] * 21}, "blobs: maximum of 20 supported, there are 21"),
        ({"blobs": ["x" * 16384, "y"]}, "blobs: maximum of 16384 bytes supported in all"),
        ({"doubles": [1] * 21}, "doubles: maximum of 20 supported, there are 21"),
    ],
)
async def test_limits_of_a_data_point(http, point, reason):
    """One that breaks a limit is refused with the reason, and stores nothing."""
    before = http.shop.stats().next_seq
    refused = await http.post(POINT, json=point)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_DATA_POINT")
    assert reason in refused.json()["error"]["message"]
    assert http.shop.stats().next_seq == before


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT CASE WHEN blob1 = 'a' THEN 1 END FROM requests", "unsupported expression type: CASE WHEN"),
        ("SELECT multiIf(1, 2, 3) FROM requests", "unknown function call: multiIf"),
        ("SELECT quantile(0.5)(double1) FROM requests", "unsupported expression type: quantile"),
        ("SELECT max(blob5) FROM requests", "cannot use the String type as argument 1 in max("),
        ("SELECT if(blob1 = 'a', 1, 'x') FROM requests", "the branches of if() are Number and String"),
        ("SELECT blob21 FROM requests", "unknown column: blob21"),
        ("SELECT 1 FROM requests FORMAT Native", "unknown format: Native"),
        ("SELECT blob1 FROM requests JOIN weather USING (blob1)", "unsupported clause: JOINS"),
        ("SELECT 1 UNION ALL SELECT 2", "unsupported expression type"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "unsupported clause: WITH"),
        ("SELECT properties FROM requests", "unknown column: properties"),
        ("SELECT blob1 FROM requests; DROP TABLE events", "there are 2 statements"),
        ("INSERT INTO requests VALUES (1)", "unsupported expression type"),
        ("SELECT * FROM read_text('/etc/passwd')", "unsupported expression type"),
        ("SELECT read_text('/etc/passwd') FROM requests", "unknown function call: read_text"),
        ("SELECT getenv('HOME')", "unknown function call: getenv"),
        ("SELECT blob1 FROM requests WHERE blob1 IN (SELECT event FROM events)", "unsupported expression type"),
        ("SELECT (SELECT 1) FROM requests", "unsupported expression type"),
        ("SELECT sum(double1) OVER () FROM requests", "unsupported expression type"),
        ("SELECT blob1[1] FROM requests", "unsupported expression type"),
        ("SHOW DATABASES", "SHOW supports TABLES"),
        ("nonsense", "unsupported expression type"),
        ("", "there are 0 statements"),
        ("(" * 20000, "nested too deeply"),
    ],
)
async def test_statements_outside_the_dialect_are_422(http, sql, message):
    """In plain text, as Analytics Engine answers; injections are refused like any other SQL."""
    refused = await http.post(SQL, content=sql)
    assert refused.status_code == 422, refused.text
    assert refused.headers["content-type"].startswith("text/plain")
    assert refused.text.startswith("Input was invalid: "), refused.text
    assert message in refused.text


@pytest.mark.parametrize("name", ["o'1", 'a"b', "x') UNION SELECT 1 --", "a; DROP TABLE events"])
async def test_names_and_texts_are_values(http, name):
    """Quotes in the names of tables, events, properties and texts are escaped."""
    mapping = {"event": name, "blobs": [name], "doubles": [name]}
    assert (await http.shop.save_dataset(name, mapping)).version == 1
    await http.shop.track(name, {name: "1"})
    table, text = "`" + name + "`", name.replace("\\", "\\\\").replace("'", "\\'")
    answer = await http.post(SQL, content=f"SELECT blob1, double1, '{text}' AS t FROM {table} WHERE dataset = '{text}'")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == [{"blob1": "1", "double1": 1.0, "t": name}]


@pytest.mark.parametrize(
    "mapping", [{}, {"event": ""}, {"event": "x", "blobs": ["a"] * 21}, {"event": "x", "blob1": "a"}]
)
async def test_an_invalid_mapping_is_400(http, mapping):
    """Nothing is saved."""
    refused = await http.put("/datasets/bad", json=mapping)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_DEFINITION")
    assert "bad" not in [dataset["name"] for dataset in (await http.get("/datasets")).json()]
