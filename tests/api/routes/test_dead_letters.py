"""Dead letters over HTTP: a refused event is kept before the answer, listed, mended, replayed and purged."""

from __future__ import annotations

import base64
import gzip

import httpx
import pytest

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.auth.keys import Keys
from tests.disks import FaultyDisk


def client(app, token=None):
    headers = {"X-API-Key": token} if token else {}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


def error(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def disk():
    return FaultyDisk()


@pytest.fixture
async def tom(tmp_path, disk):
    async with Analytics("tom", root=tmp_path, disk=disk, headroom_bytes=0) as analytics:
        yield analytics
        disk.heal()
        assert await analytics.check() == []


@pytest.fixture
async def http(tom):
    async with client(create_app(tom)) as http_client:
        yield http_client


async def balanced(http):
    stats = (await http.get("/stats")).json()
    assert stats["received"] == stats["stored"] + stats["duplicate"] + stats["rejected"]
    lines = [line.rpartition(" ") for line in (await http.get("/metrics")).text.splitlines()]
    metrics = {name: float(value) for name, _, value in lines if name[:1] != "#"}
    by_status = [
        metrics[f'lakebed_events_total{{status="{status}"}}'] for status in ("stored", "duplicate", "rejected")
    ]
    assert by_status == [stats["stored"], stats["duplicate"], stats["rejected"]]
    assert metrics["lakebed_events_received_total"] == stats["received"]
    assert metrics["lakebed_dead_letters"] == stats["dead_letters"]
    return stats


async def test_from_refusal_to_replay(http, tom):
    """A rejected event is listed with its bytes, mended, stored once, and gone."""
    raw = b'{"event": "", "userId": "ann", "messageId": "m1"}'
    body = b'[{"event": "a"}, ' + raw + b"]"
    answer = (await http.post("/track/batch", content=body)).json()
    assert (answer["stored"], answer["rejected"]) == (1, 1)
    listed = (await http.get("/deadletters")).json()
    (line,) = listed["letters"]
    assert (line["reason"], line["messageId"], line["source"], line["tries"]) == (
        "event name is empty",
        "m1",
        "http",
        0,
    )
    assert (line["preview"], listed["next"]) == (raw.decode(), None)
    letter = (await http.get(f"/deadletters/{line['id']}")).json()
    assert {key: letter[key] for key in line} == line
    assert (letter["raw"], letter["encoding"], letter["cut"], letter["shared"]) == (raw.decode(), "utf-8", False, "{}")
    again = (await http.post("/deadletters/replay")).json()
    assert (again["rejected"], again["letters"][0]["reason"]) == (1, "event name is empty")
    mended = (await http.post("/deadletters/replay", json={"ids": [line["id"]], "patch": {"event": "b"}})).json()
    assert mended == {
        "stored": 1,
        "duplicate": 0,
        "rejected": 0,
        "missing": 0,
        "letters": [{"id": line["id"], "status": "stored", "messageId": "m1", "seq": 1, "reason": None}],
    }
    assert error(await http.get(f"/deadletters/{line['id']}")) == (404, "NOT_FOUND")
    rows = (await tom.query("SELECT event, user_id, message_id FROM events ORDER BY seq DESC")).rows
    assert tuple(rows[0]) == ("b", "ann", "m1")
    stats = await balanced(http)
    assert (stats["received"], stats["stored"], stats["rejected"], stats["dead_letters"]) == (4, 2, 2, 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/track", b"{", 400),
        ("/track", b'{"event": ""}', 400),
        ("/track", b'{"a": "\xff"}', 400),
        ("/track/batch", b"[{", 400),
        ("/track/batch", b'[{"event":""}]', 200),
        ("/v1/track", b"{", 400),
        ("/v1/track", b'{"event":""}', 200),
        ("/v1/track", b'{"event":"x","properties":{"n":1e999}}', 400),
        ("/v1/t", b'{"event":""}', 200),
        ("/v1/batch", b'{"batch":[', 400),
        ("/v1/batch", b'{"batch":[{"type":"track"}]}', 200),
        ("/v1/identify", b'{"traits":{}}', 200),
    ],
)
async def test_every_rejected_event_becomes_a_dead_letter(http, path, body, status):
    """On every route and with any status: one dead letter, with the first bytes of the event."""
    response = await http.post(path, content=body)
    assert response.status_code == status
    (line,) = (await http.get("/deadletters")).json()["letters"]
    letter = (await http.get(f"/deadletters/{line['id']}")).json()
    raw = base64.b64decode(letter["raw"]) if letter["encoding"] == "base64" else letter["raw"].encode()
    item = body[body.index(b"[") + 1 : body.rindex(b"]")] if status == 200 and b"[" in body else body
    if path != "/track":
        assert raw.startswith(item.removesuffix(b"}"))
    stats = await balanced(http)
    assert (stats["received"], stats["rejected"], stats["dead_letters"]) == (1, 1, 1)


async def test_dead_letters_that_are_not_utf8_are_shown(http):
    """Neither in an event nor in the shared fields of its batch do invalid bytes prevent that."""
    await http.post("/track/batch", content=b'{"batch":[{"event":"a"}],"context":{"a":"\xff"}}')
    await http.post("/track/batch", content=b'[{"event":"\xff"}]')
    assert [line["id"] for line in (await http.get("/deadletters")).json()["letters"]] == [2, 1]
    second, first = [(await http.get(f"/deadletters/{number}")).json() for number in (2, 1)]
    assert (second["encoding"], base64.b64decode(second["raw"])) == ("base64", b'{"event":"\xff"}')
    assert (first["encoding"], first["raw"], first["shared"]) == (
        "utf-8",
        '{"event":"a"}',
        '{"context":{"a":"\ufffd"}}',
    )


async def test_compressed_bodies_are_kept_decompressed(http):
    """JSON can be mended, gzip cannot."""
    response = await http.post("/v1/batch", content=gzip.compress(b'{"batch":[{"event":""}]}'))
    assert response.json()["rejected"] == 1
    assert (await http.get("/deadletters")).json()["letters"][0]["preview"] == '{"event":""}'


async def test_dead_letters_have_the_key_of_their_sender(tmp_path):
    """Also if single events of several keys were stored together."""
    keys = Keys(tmp_path)
    (first, first_token), (second, second_token), (_, reader) = (
        keys.create("tom", scope) for scope in ("write", "write", "read")
    )
    async with Namespace(tmp_path, Analytics) as namespace:
        app = create_app(namespace)
        async with client(app) as http:
            for token in (first_token, second_token, first_token):
                response = await http.post("/v1/track", json={"event": ""}, headers={"X-API-Key": token})
                assert response.json()["rejected"] == 1
            letters = (await http.get("/deadletters", headers={"X-API-Key": reader})).json()["letters"]
            assert [line["key"] for line in letters] == [first.id, second.id, first.id]


async def test_an_invalid_body_without_a_key_is_not_kept(tmp_path):
    """A body that is not JSON has no key: without one in the headers it is refused and belongs to no object."""
    keys = Keys(tmp_path)
    keys.create("tom", "write")
    async with Namespace(tmp_path, Analytics) as namespace, client(create_app(namespace)) as http:
        assert (await http.post("/v1/batch", content=b"{")).status_code == 401
        assert namespace.names() == []


async def test_pages_and_filters(http):
    """`next` is the start of the next page; `reason` filters."""
    for number in range(5):
        await http.post("/track", json={"event": "x" * (201 + number)})
    first = (await http.get("/deadletters?limit=3")).json()
    second = (await http.get(f"/deadletters?limit=3&before={first['next']}")).json()
    assert [line["id"] for line in first["letters"] + second["letters"]] == [5, 4, 3, 2, 1]
    assert second["next"] is None
    page = (await http.get("/deadletters?reason=203")).json()
    assert [line["id"] for line in page["letters"]] == [3]


async def test_purge(http):
    """By id, also several, or by time; without either nothing is deleted."""
    for _ in range(4):
        await http.post("/track", json={"event": ""})
    assert (await http.delete("/deadletters?id=1&id=2&id=99")).json() == {"purged": 2}
    assert (await http.delete("/deadletters?before=2000-01-01")).json() == {"purged": 0}
    assert (await http.delete("/deadletters", params={"before": "2100-01-01T00:00:00+00:00"})).json() == {"purged": 2}
    assert (await http.get("/deadletters")).json() == {"letters": [], "next": None}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/deadletters?limit=0", None, (400, "INVALID_PARAMETER")),
        ("GET", "/deadletters?limit=1001", None, (400, "INVALID_PARAMETER")),
        ("GET", "/deadletters?before=x", None, (400, "INVALID_PARAMETER")),
        ("GET", "/deadletters/x", None, (400, "INVALID_PARAMETER")),
        ("GET", f"/deadletters/{1 << 63}", None, (400, "INVALID_PARAMETER")),
        ("GET", "/deadletters/7", None, (404, "NOT_FOUND")),
        ("DELETE", "/deadletters", None, (400, "INVALID_PARAMETER")),
        ("DELETE", "/deadletters?id=1&before=2026-01-01", None, (400, "INVALID_PARAMETER")),
        ("DELETE", "/deadletters?before=soon", None, (400, "INVALID_PARAMETER")),
        ("POST", "/deadletters/replay", b"{", (400, "INVALID_JSON")),
        ("POST", "/deadletters/replay", b'{"id":1}', (400, "INVALID_BODY")),
        ("POST", "/deadletters/replay", b'{"text":"{}"}', (400, "INVALID_PARAMETER")),
        ("POST", "/deadletters/replay", b'{"text":"{}","ids":[1,2]}', (400, "INVALID_PARAMETER")),
        ("POST", "/deadletters/replay", b'{"ids":[9223372036854775808]}', (400, "INVALID_BODY")),
        ("POST", "/deadletters/replay", b'{"ids":[-1]}', (400, "INVALID_BODY")),
    ],
)
async def test_invalid_requests_are_400_or_404(http, method, path, body, expected):
    """With a way to correct them, never 500, and nothing is changed."""
    await http.post("/track", json={"event": "ok"})
    assert error(await http.request(method, path, content=body)) == expected


# Faults: an event that is not durable is never 200, and an event that is sent again is kept once


BODY = b'{"batch":[{"type":"track","event":"a","messageId":"m1"},{"type":"track","event":""}]}'


@pytest.mark.parametrize("path", ["/v1/batch", "/track/batch"])
@pytest.mark.parametrize(
    ("operation", "code", "expected"),
    [("sync", 5, (503, "LOG_UNAVAILABLE")), ("write", 28, (507, "DISK_FULL"))],
)
async def test_a_broken_log_is_never_200(http, disk, path, operation, code, expected):
    """With Retry-After; when sent again the valid event is stored once, and the rejected one is kept once."""
    disk.fail(operation, code, times=99)
    for _ in range(2):
        response = await http.post(path, content=BODY)
        assert error(response) == expected
        assert int(response.headers["retry-after"]) > 0
    disk.heal()
    answer = (await http.post(path, content=BODY)).json()
    assert (answer["stored"] + answer["duplicate"], answer["rejected"]) == (1, 1)
    stats = await balanced(http)
    assert (stats["next_seq"], stats["dead_letters"]) == (1, 1)


async def test_a_full_disk_is_507(tmp_path):
    """At the low-water mark events are refused with 507 and Retry-After; reads and dead letters still work."""
    disk = FaultyDisk()
    async with Analytics("tom", root=tmp_path, disk=disk, headroom_bytes=1000) as tom, client(create_app(tom)) as http:
        await http.post("/track", json={"event": ""})
        disk.free = 999
        for path, body in (("/track", b'{"event":"a"}'), ("/v1/track", b'{"event":"a"}'), ("/v1/batch", BODY)):
            response = await http.post(path, content=body)
            assert error(response) == (507, "DISK_FULL")
            assert int(response.headers["retry-after"]) > 0
        replayed = await http.post("/deadletters/replay", json={"patch": {"event": "b"}})
        assert error(replayed) == (507, "DISK_FULL")
        assert len((await http.get("/deadletters")).json()["letters"]) == 1
        disk.free = None
        assert (await http.post("/deadletters/replay", json={"patch": {"event": "b"}})).json()["stored"] == 1
        assert (await http.post("/v1/batch", content=BODY)).json()["stored"] == 1
        assert await tom.check() == []


async def test_a_dead_letter_that_cannot_be_stored_is_503(http, tom):
    """While SQLite cannot write, no event is reported as rejected; when sent again it is kept."""
    trigger = "CREATE TRIGGER t BEFORE INSERT ON dead_letters BEGIN SELECT raise(ABORT, 'disk full'); END"
    await tom._components.storage.transact(lambda tx: tx.fetch(trigger))
    for path, body in (
        ("/track", b'{"event":""}'),
        ("/track", b"{"),
        ("/v1/track", b'{"event":""}'),
        ("/v1/batch", BODY),
    ):
        assert error(await http.post(path, content=body)) == (503, "STORAGE_UNAVAILABLE")
    await tom._components.storage.transact(lambda tx: tx.fetch("DROP TRIGGER t"))
    answer = (await http.post("/v1/batch", content=BODY)).json()
    assert (answer["duplicate"], answer["rejected"]) == (1, 1)
    await balanced(http)
