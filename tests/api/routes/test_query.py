"""POST /query: formats, refusals, keys."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import httpx
import pyarrow as pa
import pytest
import pytest_asyncio

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock
from lakebed.query.sandbox.forkserver import shared

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ARROW = "application/vnd.apache.arrow.stream"
ENDLESS = "SELECT count(*) FROM range(100000000000) r WHERE hash(r.range) % 7 = 3"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory):
    """A client of an app over an object with four events. No test changes it."""
    settings = {"headroom_bytes": 0, "untrusted_queries": 1, "untrusted_max_rows": 3000}
    async with Analytics("tom", root=tmp_path_factory.mktemp("tom"), **settings) as tom:
        await tom.batch([{"event": f"E{n % 2}", "userId": "ann", "properties": {"n": n}} for n in range(4)])
        transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            yield client
        assert await tom.check() == []


async def ask(http, sql, accept=None, **more):
    headers = {} if accept is None else {"Accept": accept}
    return await http.post("/query", json={"sql": sql, **more}, headers=headers)


async def test_json(http):
    """JSON has the columns with their types, the rows as lists, and their tiers."""
    answer = await ask(http, "SELECT event, count(*) AS n FROM events GROUP BY 1 ORDER BY 1")
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("ms") > 0
    assert body == {
        "columns": [{"name": "event", "type": "string"}, {"name": "n", "type": "int64"}],
        "rows": [["E0", 2], ["E1", 2]],
        "tiers": ["L1"],
        "seq": [0, 4],
    }
    assert answer.headers["lakebed-tiers"] == "L1"
    assert answer.headers["lakebed-seq"] == "0-4"
    assert answer.headers["vary"] == "Accept"


async def test_parameters_and_past(http):
    """params, as_of and limit have the meaning of query_untrusted's."""
    assert (await ask(http, "SELECT ? + ?", params=[1, 2])).json()["rows"] == [[3]]
    assert (await ask(http, "SELECT seq FROM events WHERE seq > $low", params={"low": 2})).json()["rows"] == [[3]]
    assert len((await ask(http, "SELECT * FROM events", limit=3)).json()["rows"]) == 3
    assert (await ask(http, "SELECT count(*) FROM events", as_of="2020-01-01")).json()["rows"] == [[0]]


VALUES = """SELECT 9007199254740991 AS safe, 9007199254740992 AS big, -9007199254740993 AS small,
170141183460469231731687303715884105727 AS huge, 1.10::DECIMAL(9,2) AS dec, 'nan'::DOUBLE AS nan,
'-inf'::DOUBLE AS inf, 0.1::DOUBLE AS d, NULL AS nothing, true AS yes, DATE '2026-01-02' AS day,
TIMESTAMPTZ '2026-01-02 03:04:05.000006Z' AS at, TIME '01:02:03' AS t, '\\x00\\xFF'::BLOB AS bytes, 'π"' AS text,
[1, NULL] AS l, {'a': 1.5, 'b': 'x'} AS s, MAP {'k': 2} AS m, INTERVAL '1 month 2 days' AS i"""


async def test_values_survive_json(http):
    """No number is rounded and all is JSON: numbers beyond doubles are text, bytes are Base64, times ISO."""
    answer = await ask(http, VALUES)
    assert answer.status_code == 200, answer.text
    body = json.loads(answer.text, parse_constant=pytest.fail)
    names = [column["name"] for column in body["columns"]]
    assert dict(zip(names, body["rows"][0], strict=True)) == {
        "safe": 9007199254740991,
        "big": "9007199254740992",
        "small": "-9007199254740993",
        "huge": "170141183460469231731687303715884105727",
        "dec": "1.10",
        "nan": "NaN",
        "inf": "-Infinity",
        "d": 0.1,
        "nothing": None,
        "yes": True,
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000006Z",
        "t": "01:02:03",
        "bytes": "AP8=",
        "text": 'π"',
        "l": [1, None],
        "s": {"a": "1.5", "b": "x"},
        "m": [["k", 2]],
        "i": "1 months 2 days 0 nanoseconds",
    }


async def test_every_format_has_every_row(http):
    """JSON, NDJSON, CSV and Arrow give the same rows, also in several parts."""
    sql = "SELECT range AS n, CASE WHEN range % 3 > 0 THEN 't' || range END AS t FROM range(2500)"
    expected = [[n, f"t{n}" if n % 3 else None] for n in range(2500)]
    assert (await ask(http, sql)).json()["rows"] == expected
    lines = (await ask(http, sql, "application/x-ndjson")).text.splitlines()
    assert [[row["n"], row["t"]] for row in map(json.loads, lines)] == expected
    rows = list(csv.reader(io.StringIO((await ask(http, sql, "text/csv")).text)))
    assert rows == [["n", "t"], *[[str(n), t or ""] for n, t in expected]]
    table = pa.ipc.open_stream((await ask(http, sql, ARROW)).content).read_all()
    assert [list(row.values()) for row in table.to_pylist()] == expected
    for accept in (None, "application/x-ndjson", "text/csv", ARROW):
        empty = await ask(http, "SELECT 1 AS n LIMIT 0", accept)
        assert empty.status_code == 200
    assert pa.ipc.open_stream(empty.content).read_all().column_names == ["n"]


async def test_csv_has_no_formulas(http):
    """Text that a spreadsheet would run gets an apostrophe, numbers stay numbers, names are guarded too."""
    texts = """'=1+1', '+1', '-1', '@x', '\t=1', 'a,b', 'a"b', 'a\nb', '', NULL, 'plain'"""
    sql = f'SELECT unnest([{texts}]) AS "=name", -1 AS n'
    answer = await ask(http, sql, "text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == (
        '\'=name,n\r\n\'=1+1,-1\r\n\'+1,-1\r\n\'-1,-1\r\n\'@x,-1\r\n\'\t=1,-1\r\n"a,b",-1\r\n"a""b",-1\r\n"a\nb",-1\r\n'
        '"",-1\r\n,-1\r\nplain,-1\r\n'
    )


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/html, application/xml;q=0.9, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("TEXT/CSV", "text/csv"),
        (f"{ARROW}, */*;q=0.8", ARROW),
        ("text/html", None),
        ("application/json;q=0", None),
        ("image/png, text/html;q=x", None),
    ],
)
async def test_accept(http, accept, kind):
    """The Accept header selects the format; if it accepts none, 406 names them."""
    answer = await ask(http, "SELECT 1", accept)
    if kind is None:
        assert answer.status_code == 406
        assert answer.json()["error"]["code"] == "NOT_ACCEPTABLE"
        assert "text/csv" in answer.json()["error"]["message"]
    else:
        assert answer.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SELECT 1",
        b"[]",
        b"{}",
        b'{"sql": 1}',
        b'{"sql": "SELECT 1", "query": "x"}',
        b'{"sql": "SELECT 1", "limit": -1}',
        b'{"sql": "SELECT 1", "limit": "1"}',
        b'{"sql": "SELECT 1", "timeout": 0.05}',
        b'{"sql": "SELECT 1", "timeout": NaN}',
        b'{"sql": "SELECT 1", "params": 1}',
        b'{"sql": "SELECT 1", "as_of": 1}',
        b'{"sql": "SELECT 1", "as_of": "tomorrow"}',
        b'{"sql": "\xff"}',
        b'{"sql": "SELECT ?", "params": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
        b'{"sql": "SELECT ?", "params": [1' + b"0" * 5000 + b"]}",
        b'{"sql": "SELECT ?", "params": [{"a": [1, "x"]}]}',
        b'{"sql": "SELECT ?, ?", "params": [1]}',
    ],
)
async def test_invalid_queries_are_400(http, body):
    """With a reason, and the server continues."""
    answer = await http.post("/query", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert (await ask(http, "SELECT 1")).json()["rows"] == [[1]]


async def test_errors_say_what_to_change(http):
    """An error has its position, its name and the allowed values; a limit has its number; none shows the server."""
    refused = await ask(http, "SELECT *\nFROM read_csv('/etc/passwd')")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "QUERY_REFUSED")
    assert "read_csv is not allowed" in refused.json()["error"]["message"]
    absent = (await ask(http, "SELECT *\nFROM evnts")).json()["error"]
    assert absent["details"] == {"line": 2, "column": 6}
    assert "Allowed tables: " in absent["message"]
    wrong = await ask(http, "SELECT evnt FROM events")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "QUERY_ERROR")
    large = await ask(http, "SELECT * FROM range(3001)")
    assert (large.status_code, large.json()["error"]["code"]) == (422, "QUERY_TOO_LARGE")
    assert large.json()["error"]["details"]["limit"] == 3000
    timed_out = await ask(http, ENDLESS, timeout=0.2)
    assert (timed_out.status_code, timed_out.json()["error"]["code"]) == (504, "QUERY_TIMEOUT")


async def test_too_many_queries_are_429(http):
    """With Retry-After; the others are answered."""
    running = asyncio.create_task(ask(http, ENDLESS, timeout=1))
    await until(lambda: shared().running == 1)
    busy = await ask(http, "SELECT 1")
    assert (busy.status_code, busy.json()["error"]["code"]) == (429, "QUERY_BUSY")
    assert busy.headers["retry-after"] == "1"
    assert (await running).status_code == 504


async def test_a_disconnected_client_cancels_its_query(tmp_path):
    """In a server of one object the query is stopped and its slot is free."""
    body = json.dumps({"sql": ENDLESS}).encode()
    messages = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
    scope = {"type": "http", "method": "POST", "path": "/query", "query_string": b"", "headers": [], "client": None}

    async def send(message):
        pass

    async with Analytics("tom", root=tmp_path, headroom_bytes=0) as tom:
        request = asyncio.create_task(create_app(tom)(scope, messages.get, send))
        await until(lambda: shared().running == 1)
        messages.put_nowait({"type": "http.disconnect"})
        await request
        await until(lambda: shared().running == 0)


async def until(reached):
    async with asyncio.timeout(15):
        while not reached():
            await asyncio.sleep(0.01)


async def test_keys(tmp_path):
    """A read key queries its own object only; a write key may not query."""
    async with Namespace(tmp_path, headroom_bytes=0) as root:
        for name in ("ann", "bob"):
            await root.get(name).track(f"Of {name}")
        keys = Keys(tmp_path, SystemClock())
        secrets = {(name, scope): keys.create(name, scope)[1] for name in ("ann", "bob") for scope in ("read", "write")}
        transport = httpx.ASGITransport(app=create_app(root), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def status(secret):
                headers = {"Authorization": f"Bearer {secret}"} if secret else {}
                body = {"sql": "SELECT event FROM events"}
                answer = await client.post("/query", params={"object": "bob"}, json=body, headers=headers)
                return answer.json()["rows"] if answer.status_code == 200 else answer.status_code

            assert await status(secrets["ann", "read"]) == [["Of ann"]]
            assert await status(secrets["bob", "read"]) == [["Of bob"]]
            assert await status(secrets["ann", "write"]) == 403
            assert await status(None) == 401
