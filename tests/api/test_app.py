"""The app: tracking and reading over HTTP, and an error body for everything."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.errors import error_handlers
from lakebed.auth.keys import Keys
from lakebed.errors import (
    ArchiveUnavailable,
    Backpressure,
    DiskFull,
    LakebedError,
    LogUnavailable,
    ObjectLocked,
    ObjectUnavailable,
)


def client(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path) as analytics:
        yield analytics
        assert await analytics.check() == []


@pytest.fixture
async def http(tom):
    async with client(create_app(tom, max_body_bytes=100_000, body_timeout_s=0.2)) as http_client:
        yield http_client


def error(response):
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "details"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]["code"]


# Tracking


@pytest.mark.parametrize(
    "event",
    [
        {"event": "Seen", "properties": {"page": "/"}, "userId": "alice"},
        {"event": "Seen", "properties": {"page": "/"}, "user_id": "alice"},
        {"type": "track", "event": "Seen", "properties": {"page": "/"}, "userId": "alice", "extra": [1]},
    ],
)
async def test_track_stores_one_event(http, tom, event):
    """The receipt has its position; Segment's names and ours are accepted; an acknowledged event is durable."""
    response = await http.post("/track", json=event)
    assert response.status_code == 200
    body = response.json()
    assert body == {"seq": 0, "messageId": body["messageId"], "status": "stored"}
    rows = (await tom.query("SELECT seq, event, user_id, properties FROM events")).rows
    assert [tuple(row) for row in rows] == [(0, "Seen", "alice", '{"page":"/"}')]


async def test_a_retry_is_a_duplicate(http):
    """The same messageId stores nothing, and the receipt has the position of the first one."""
    event = {"event": "Seen", "message_id": "m1"}
    assert (await http.post("/track", json=event)).json() == {"seq": 0, "messageId": "m1", "status": "stored"}
    assert (await http.post("/track", json=event)).json() == {"seq": 0, "messageId": "m1", "status": "duplicate"}


async def test_an_invalid_event_is_400_with_its_reason(http):
    """The error has the reason and the message id."""
    response = await http.post("/track", json={"event": "x" * 201, "messageId": "m1"})
    assert error(response) == (400, "INVALID_EVENT")
    assert "201 characters" in response.json()["error"]["message"]
    assert response.json()["error"]["details"] == {"messageId": "m1"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"null", b'{"a": NaN}', b'{"a": "\xff"}', b'{"a":' + b"[" * 5000, b"\xff\xfe"]
)
async def test_a_body_that_is_not_an_object_is_400(http, body):
    """/track answers any other body with 400 and a code."""
    assert error(await http.post("/track", content=body)) == (400, "INVALID_JSON")


@pytest.mark.parametrize(
    "body",
    [
        b'[{"event":"a"},{"event":"b"}]',
        b'{"batch":[{"event":"a"},{"event":"b"}]}',
        b'{"event":"a"}\n{"event":"b"}\n',
    ],
    ids=["array", "envelope", "NDJSON"],
)
async def test_batch_takes_three_forms(http, tom, body):
    """A JSON array, Segment's envelope and NDJSON give one receipt for each event, in order."""
    response = await http.post("/track/batch", content=body)
    assert response.status_code == 200
    answer = response.json()
    events = answer.pop("events")
    assert answer == {"success": True, "received": 2, "stored": 2, "duplicate": 0, "rejected": 0}
    assert [(event["status"], event["seq"], event.get("reason")) for event in events] == [
        ("stored", 0, None),
        ("stored", 1, None),
    ]
    assert await tom.query("SELECT string_agg(event ORDER BY seq) FROM events")
    assert (await tom.query("SELECT string_agg(event, '' ORDER BY seq) FROM events")).scalar() == "ab"


async def test_the_valid_events_of_a_batch_are_stored(http):
    """received = stored + duplicate + rejected; each rejected event has a reason."""
    items = [{"event": "a", "messageId": "1"}, {"event": ""}, 7, {"event": "a", "messageId": "1"}]
    answer = (await http.post("/track/batch", json=items)).json()
    assert [event["status"] for event in answer["events"]] == ["stored", "rejected", "rejected", "duplicate"]
    assert answer["events"][1]["reason"] == "event name is empty"
    assert (answer["success"], answer["received"]) == (False, 4)
    assert (answer["stored"], answer["duplicate"], answer["rejected"]) == (1, 1, 2)


async def test_an_invalid_batch_is_400_and_stores_nothing(http):
    """A batch that is not JSON has no items to accept."""
    assert error(await http.post("/track/batch", content=b"[{")) == (400, "INVALID_EVENT")


# Reading


async def test_stats_and_dau(http):
    """The live counters and the daily rows include the events just tracked."""
    for user in "aab":
        await http.post("/track", json={"event": "Seen", "userId": user})
    stats = (await http.get("/stats")).json()
    assert (stats["stored"], stats["active"], stats["totals"]) == (3, 2, {"Seen": 3})
    days = (await http.get("/dau", params={"days": 3})).json()
    assert len(days) == 3
    assert list(days[0]) == ["date", "dau", "events"]
    assert (days[-1]["dau"], days[-1]["events"]) == (2, 3)
    assert len((await http.get("/dau")).json()) == 7


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5", "99999999999999999999", "²", ""])
async def test_invalid_parameters_are_400(http, days):
    """A number of days outside the limits is refused."""
    assert error(await http.get("/dau", params={"days": days})) == (400, "INVALID_PARAMETER")


# Errors


async def test_unknown_paths_and_methods(http):
    """404 and 405 have the form of all errors."""
    assert error(await http.get("/nope")) == (404, "NOT_FOUND")
    response = await http.get("/track")
    assert error(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


async def test_a_large_body_is_413(http):
    """By its Content-Length, or by the bytes received if it has none; the error has the limit."""

    async def chunks():
        for _ in range(20):
            yield b"x" * 10_000

    for content in (b"x" * 100_001, chunks()):
        response = await http.post("/track/batch", content=content)
        assert error(response) == (413, "BODY_TOO_LARGE")
        assert response.json()["error"]["details"] == {"limit": 100_000}
    assert (await http.post("/track/batch", content=b"[" + b" " * 99_998 + b"]")).status_code == 200


async def test_a_slow_body_is_408(http):
    """A client that does not finish its body does not occupy the server."""

    async def stalls():
        yield b"{"
        await asyncio.Event().wait()

    assert error(await http.post("/track", content=stalls())) == (408, "BODY_TIMEOUT")


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip", "aes128gcm"])
async def test_an_unknown_encoding_is_415(http, encoding):
    """An unknown encoding, or one applied twice, is refused with the names of the known ones."""
    response = await http.post("/track", content=b"x", headers={"content-encoding": encoding})
    assert error(response) == (415, "UNSUPPORTED_ENCODING")
    assert response.headers["accept-encoding"] == "gzip, x-gzip, deflate, br, zstd"


async def test_encoded_bodies(http):
    """A gzipped batch is stored like a plain one, small or large; a truncated one is 400, a bomb 413."""
    for count in (1, 700):
        events = json.dumps([{"event": f"e{n}"} for n in range(count)]).encode()
        compressed = gzip.compress(events, 1)
        response = await http.post("/track/batch", content=compressed, headers={"content-encoding": "GZIP"})
        assert response.json()["stored"] == count
    response = await http.post("/track/batch", content=compressed[:-9], headers={"content-encoding": "gzip"})
    assert error(response) == (400, "INVALID_ENCODING")
    bomb = gzip.compress(bytes(100_001))
    response = await http.post("/track/batch", content=bomb, headers={"content-encoding": "gzip"})
    assert error(response) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("raised", "expected", "retry"),
    [
        (Backpressure("too fast", limit=1), (429, "BACKPRESSURE"), "1"),
        (DiskFull("/secret/path is full"), (507, "DISK_FULL"), "60"),
        (LogUnavailable("/secret/path"), (503, "LOG_UNAVAILABLE"), "5"),
        (ObjectLocked("open in 77", pid=77, path="/secret/path"), (503, "OBJECT_LOCKED"), "5"),
        (ObjectUnavailable("/secret/path"), (503, "OBJECT_UNAVAILABLE"), "5"),
        (ArchiveUnavailable("/secret/path"), (503, "ARCHIVE_UNAVAILABLE"), "30"),
        (LakebedError("/secret/path"), (500, "INTERNAL"), None),
        (ZeroDivisionError("/secret/path"), (500, "INTERNAL"), None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_errors_of_the_engine(raised, expected, retry):
    """Each error has a status, a code and Retry-After if it is temporary; none shows the server's paths."""

    async def failing(_request):
        raise raised

    routes = [Route("/track", failing, methods=["POST"])]
    async with client(Starlette(routes=routes, exception_handlers=error_handlers)) as http:
        response = await http.post("/track", json={"event": "x"})
    assert error(response) == expected
    assert response.headers.get("retry-after") == retry
    assert "secret" not in response.text
    assert "77" not in response.text


# Objects


async def test_the_key_selects_the_object(tmp_path):
    """In a namespace each key reaches its own object, which a write creates; reading one that does not exist is 404."""
    keys = Keys(tmp_path)
    tokens = {name: keys.create(name, "admin")[1] for name in ("sam", "tom", "nobody")}
    async with Namespace(tmp_path, Analytics) as ns, client(create_app(ns)) as http:
        for name in ("sam", "tom"):
            await http.post("/track", json={"event": name}, headers={"X-API-Key": tokens[name]})
        for name in ("sam", "tom"):
            headers = {"X-API-Key": tokens[name]}
            assert (await http.get("/stats", headers=headers)).json()["totals"] == {name: 1}
            assert (await http.get("/dau?days=1", headers=headers)).json()[0]["events"] == 1
        for path in ("/stats", "/dau"):
            assert error(await http.get(path, headers={"X-API-Key": tokens["nobody"]})) == (404, "NOT_FOUND")
        assert ns.names() == ["sam", "tom"]


async def test_without_keys_there_is_one_object(tmp_path):
    """A request cannot select another object than "default", neither by a header nor by the query."""
    async with Namespace(tmp_path, Analytics) as ns, client(create_app(ns)) as http:
        await http.post("/track", json={"event": "a"}, headers={"X-Lakebed-Object": "tom"})
        await http.post("/track?object=sam", json={"event": "b"})
        assert ns.names() == ["default"]
        assert (await http.get("/stats?object=tom")).json()["totals"] == {"a": 1, "b": 1}


# Lifespan


async def test_the_lifespan_opens_and_closes_the_object(tmp_path):
    """The lifespan opens a closed object and closes it again; it leaves an open one alone."""
    tom = Analytics("tom", root=tmp_path)
    app = create_app(tom)
    async with app.router.lifespan_context(app):
        assert tom.is_open
    assert not tom.is_open
    async with tom:
        async with app.router.lifespan_context(app):
            pass
        assert tom.is_open
    namespace = Namespace(tmp_path, Analytics)
    app = create_app(namespace)
    for _ in range(2):
        async with app.router.lifespan_context(app), client(app) as http:
            assert (await http.post("/track", json={"event": "a"})).status_code == 200
        assert not namespace.is_open


async def test_mounted_in_another_app(tmp_path):
    """The outer app opens the object; paths lie under the mount; a closed object is 503, not a crash."""
    tom = Analytics("tom", root=tmp_path)
    outer = Starlette(routes=[Mount("/analytics", create_app(tom))], lifespan=lambda _app: tom)
    async with client(outer) as http:
        assert error(await http.post("/analytics/track", json={"event": "a"})) == (503, "OBJECT_CLOSED")
        async with outer.router.lifespan_context(outer):
            assert (await http.post("/analytics/track", json={"event": "a"})).json()["seq"] == 0
            assert error(await http.get("/analytics/nope")) == (404, "NOT_FOUND")


async def test_concurrent_tracking_over_http(http, tom):
    """Two hundred requests at once: each stored once, positions without gaps."""
    responses = await asyncio.gather(
        *(http.post("/track", json={"event": "e", "messageId": str(n)}) for n in range(200))
    )
    assert sorted(response.json()["seq"] for response in responses) == list(range(200))
    assert (await tom.query("SELECT count(DISTINCT message_id) FROM events")).scalar() == 200
    assert json.loads(responses[0].content)["status"] == "stored"
