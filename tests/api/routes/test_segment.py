"""Segment's HTTP API: the requests of its clients, and the answers that they need."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from pathlib import Path

import httpx
import pytest

from lakebed import Analytics
from lakebed.api import create_app
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock

_RECORDED = Path(__file__).parents[2] / "data" / "segment_requests.jsonl"
CAPTURED = [json.loads(line) for line in _RECORDED.read_text().splitlines()]
KINDS = {"track": "t", "identify": "i", "page": "p", "screen": "s", "group": "g", "alias": "a"}
CALL = {"event": "Seen", "userId": "ann", "groupId": "acme", "previousId": "anon", "name": "Home", "messageId": "m1"}


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path) as analytics:
        yield analytics
        assert await analytics.check() == []


@pytest.fixture
async def http(tom):
    transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http_client:
        yield http_client


def refused(response, status=400):
    """The code of an error; its body has our form and Segment's."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["code", "message", "error"]
    assert (body["code"], body["message"]) == (body["error"]["code"], body["error"]["message"])
    return body["code"]


async def rows(tom, columns="type, event, user_id"):
    return [tuple(row) for row in (await tom.query(f"SELECT {columns} FROM events ORDER BY seq")).rows]


# Calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("short", [False, True])
async def test_the_path_is_the_type(http, tom, kind, short):
    """Whatever type the body has; the receipt has the client's messageId."""
    path = KINDS[kind] if short else kind
    for number, extra in enumerate(({}, {"type": "track" if kind != "track" else "page"})):
        response = await http.post(f"/v1/{path}", json=CALL | {"messageId": f"m{number}"} | extra)
        assert response.status_code == 200
        events = [{"seq": number, "messageId": f"m{number}", "status": "stored"}]
        counts = {"success": True, "received": 1, "stored": 1, "duplicate": 0, "rejected": 0}
        assert response.json() == counts | {"events": events}
    assert [row[0] for row in await rows(tom)] == [kind, kind]


async def test_a_retried_call_is_a_duplicate(http):
    """The same messageId again is 200 and stores nothing."""
    await http.post("/v1/track", json=CALL)
    answer = (await http.post("/v1/track", json=CALL)).json()
    assert (answer["success"], answer["stored"], answer["duplicate"]) == (True, 0, 1)
    assert answer["events"] == [{"seq": 0, "messageId": "m1", "status": "duplicate"}]


async def test_a_rejected_event_is_200_with_its_reason(http, tom):
    """Otherwise its client would repeat it for ever, or drop others with it; the receipt has the outcome."""
    for path, body in (("track", {}), ("identify", {"traits": {}}), ("t", {"event": "x" * 201})):
        response = await http.post(f"/v1/{path}", json=body)
        assert response.status_code == 200
        answer = response.json()
        assert (answer["success"], answer["rejected"]) == (False, 1)
        assert answer["events"][0]["reason"]
    assert await rows(tom) == []


async def test_simultaneous_calls_have_their_own_answers(http, tom):
    """Valid and invalid events that are stored together each have their own receipt."""
    bodies = [{"event": "" if number % 7 == 3 else "e", "messageId": str(number)} for number in range(100)]
    requests = [http.post("/v1/track", json=body) for body in bodies]
    answers = [response.json()["events"][0] for response in await asyncio.gather(*requests)]
    assert [answer["messageId"] for answer in answers] == [body["messageId"] for body in bodies]
    assert [answer["status"] for answer in answers] == [
        "rejected" if not body["event"] else "stored" for body in bodies
    ]
    assert len(await rows(tom)) == sum(bool(body["event"]) for body in bodies)


_NO_EVENTS = [b"[]", b"7"]  # in a batch such an item is refused by itself, and the batch is not
_NO_JSON = [
    b"",
    b"{",
    b'{"event":"a"',
    b'{"event":"a"}{"event":"b"}',
    b'{"event":"a"}\n{"event":"b"}',
    b'{"event":NaN}',
    b'{"event":"a","properties":{"x":NaN}}',
    b'{"event":"a","properties":{"x":1e999}}',
    b'{"event":"a","properties":{"x":' + b"9" * 5_000 + b"}}",
    b'{"event":"a\xff"}',
    b'{"event":"a","properties":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_001,
    b"\x1f\x8b\x08\x00",
    gzip.compress(b'{"event":"a"}', mtime=0)[:-9],
]


def in_a_batch(body):
    """The body as an item of a batch; one that is compressed or empty stays as it is."""
    if not body or body[:2] == b"\x1f\x8b":
        return body
    return b'{"batch":[' + body.replace(b"}{", b"} {") + b"]}"


@pytest.mark.parametrize(
    ("path", "bodies"),
    [(path, (*_NO_JSON, *_NO_EVENTS)) for path in ("track", "t")]
    + [(path, [in_a_batch(body) for body in _NO_JSON]) for path in ("batch", "import")],
    ids=["track", "t", "batch", "import"],
)
async def test_invalid_json_is_400(http, tom, path, bodies):
    """In Segment's form, with a reason; nothing is stored, and the next request is served."""
    for body in bodies:
        assert refused(await http.post(f"/v1/{path}", content=body)) in ("INVALID_JSON", "INVALID_ENCODING"), body[:80]
        assert (await http.post("/v1/track", json=CALL)).status_code == 200
        assert await rows(tom) == [("track", "Seen", "ann")], body[:80]


async def test_events_stored_together_fail_together(tmp_path):
    """Each is 503 with Retry-After; afterwards they are accepted."""
    tom = Analytics("tom", root=tmp_path)
    transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        requests = [http.post("/v1/track", json=CALL | {"messageId": str(number)}) for number in range(5)]
        for response in await asyncio.gather(*requests):
            assert refused(response, 503) == "OBJECT_CLOSED"
            assert response.headers["retry-after"]
        async with tom:
            assert (await http.post("/v1/track", json=CALL)).json()["stored"] == 1


async def test_rejected_events_become_dead_letters(http, tom):
    """A rejected event, one of a batch, and a body that is not JSON can be shown and mended later."""
    await http.post("/v1/track", json={"userId": "ann", "messageId": "single"})
    await http.post("/v1/batch", json={"batch": [{"event": "a"}, {"event": "", "messageId": "of a batch"}]})
    await http.post("/v1/track", content=b'{"event":')
    letters = await tom.dead_letters()
    assert sorted(letter.message_id or "" for letter in letters) == ["", "of a batch", "single"]
    assert all(letter.reason for letter in letters)


# Batches


@pytest.mark.parametrize("path", ["batch", "b", "import"])
async def test_the_valid_events_of_a_batch_are_stored(http, tom, path):
    """received = stored + duplicate + rejected, in the order of the batch."""
    items = [{"type": "track", "event": "a", "messageId": "1"}, {"type": "nope"}, 7, {"event": "a", "messageId": "1"}]
    response = await http.post(f"/v1/{path}", json={"batch": items, "sentAt": "2026-01-01T00:00:00Z"})
    answer = response.json()
    assert response.status_code == 200
    assert [event["status"] for event in answer["events"]] == ["stored", "rejected", "rejected", "duplicate"]
    assert (answer["received"], answer["stored"], answer["duplicate"], answer["rejected"]) == (4, 1, 1, 2)
    assert await rows(tom) == [("track", "a", None)]


async def test_an_invalid_event_does_not_affect_the_others(http, tom):
    """NaN in one of two, as Python writes it: that one is rejected, the other stored."""
    body = b'{"batch":[{"event":"a"},{"event":"b","properties":{"x":NaN}}]}'
    answer = (await http.post("/v1/batch", content=body)).json()
    assert [event["status"] for event in answer["events"]] == ["stored", "rejected"]
    assert await rows(tom, "event") == [("a",)]


async def test_limits_are_segments(http):
    """32 KB for a call, 500 KB and 2,500 events for a batch, decompressed: more is 400, and that much is accepted."""
    event = {"event": "a", "properties": {"x": ""}}

    def sized(size, wrap):
        empty = len(json.dumps(wrap(event)))
        return json.dumps(wrap({"event": "a", "properties": {"x": "y" * (size - empty)}})).encode()

    call = sized(32 << 10, lambda item: item)
    assert (await http.post("/v1/track", content=call)).json()["stored"] == 1
    assert refused(await http.post("/v1/track", content=call + b" ")) == "BODY_TOO_LARGE"
    packed = gzip.compress(call + b" ")
    assert refused(await http.post("/v1/track", content=packed)) == "BODY_TOO_LARGE"
    many = json.dumps({"batch": [{"event": "a"}] * 2_500}).encode()
    assert (await http.post("/v1/batch", content=many)).json()["stored"] == 2_500
    more = json.dumps({"batch": [{"event": "a"}] * 2_501}).encode()
    assert refused(await http.post("/v1/batch", content=more)) == "BATCH_TOO_LARGE"
    assert refused(await http.post("/v1/batch", content=json.dumps([1] * 2_501).encode())) == "BATCH_TOO_LARGE"
    large = many + b" " * ((500 << 10) - len(many))
    assert (await http.post("/v1/batch", content=large)).status_code == 200
    assert refused(await http.post("/v1/batch", content=large + b" ")) == "BODY_TOO_LARGE"
    assert refused(await http.post("/v1/batch", content=b" " * (6 << 20))) == "BODY_TOO_LARGE"


@pytest.mark.parametrize("declared", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_the_content_type_does_not_matter(http, declared):
    """Real clients send JSON as text/plain, and gzip as a form, with or without a Content-Encoding."""
    headers = {} if declared is None else {"Content-Type": declared}
    body = json.dumps({"batch": [{"event": "a"}]}).encode()
    for content, encoding in (
        (body, {}),
        (gzip.compress(body, mtime=0), {}),
        (gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"}),
    ):
        response = await http.post("/v1/batch", content=content, headers=headers | encoding)
        assert (response.status_code, response.json()["stored"]) == (200, 1)


# Recorded requests


@pytest.mark.parametrize(
    "request_", CAPTURED, ids=[f"{number}{request['path']}" for number, request in enumerate(CAPTURED)]
)
async def test_recorded_requests_of_real_clients(http, tom, request_):
    """Each is 200, as their clients need it (some know no other success), and every event is stored once."""
    body = request_["body"].encode()
    parsed = json.loads(body)
    events = parsed.get("batch", [parsed])
    content = gzip.compress(body, mtime=0) if request_["headers"].get("Content-Encoding") == "gzip" else body
    for status in ("stored", "duplicate"):
        response = await http.post(request_["path"], content=content, headers=request_["headers"])
        answer = response.json()
        assert (response.status_code, answer["success"], answer[status]) == (200, True, len(events))
        assert [receipt["messageId"] for receipt in answer["events"]] == [event["messageId"] for event in events]
    stored = await rows(tom, "type, user_id, anonymous_id, group_id")
    names = ("type", "userId", "anonymousId", "groupId")
    assert stored == [tuple(event.get(name) for name in names) for event in events]


# The browser's library


async def test_metrics_are_accepted_and_ignored(http, tom):
    """Measurements of analytics.js about itself are not events."""
    response = await http.post(
        "/v1/m", content=b'{"series":[{"type":"Counter"}]}', headers={"Content-Type": "text/plain"}
    )
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert await rows(tom) == []


async def test_settings_name_this_server(http):
    """The library sends to the host that it asked, and loads no other integration."""
    answer = (await http.get("/v1/projects/WK/settings", headers={"Host": "localhost:8080"})).json()
    assert answer["integrations"] == {
        "Segment.io": {"apiKey": "WK", "apiHost": "localhost:8080/v1", "protocol": "http"}
    }
    assert answer["remotePlugins"] == []
    assert answer["metrics"] == {"sampleRate": 0}


async def test_a_page_of_another_origin_may_send(keyed):
    """The preflight for what analytics.js sends (a text with Authorization), and the answer that the page may read."""
    http, write, _ = keyed
    preflight_headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    preflight_headers["Access-Control-Request-Headers"] = "authorization,content-type"
    for path in ("t", "i", "p", "s", "g", "a", "b", "m", "track", "batch"):
        preflight = await http.options(f"/v1/{path}", headers=preflight_headers)
        assert preflight.is_success
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    headers = {"Origin": "https://shop.example", "Authorization": f"Bearer {write}", "Content-Type": "text/plain"}
    for answer in (
        await http.post("/v1/t", json={"event": "a"}, headers=headers),
        await http.post("/v1/t", content=b"{", headers=headers),
        await http.get(f"/v1/projects/{write}/settings", headers=headers),
        await http.post("/v1/m", content=b"{}", headers=headers),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"


# Keys


@pytest.fixture
async def keyed(tmp_path):
    """An app that needs a key, with a write key and a read key."""
    keys = Keys(tmp_path, SystemClock())
    write, read = keys.create("tom", "write")[1], keys.create("tom", "read")[1]
    async with Analytics("tom", root=tmp_path) as tom:
        transport = httpx.ASGITransport(app=create_app(tom), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield http, write, read


@pytest.mark.parametrize("path", ["track", "t", "batch", "b"])
async def test_places_of_the_write_key(keyed, path):
    """Basic, Bearer, X-API-Key or the body; without one, or with a read key, nothing is stored."""
    http, write, read = keyed
    basic = {"Authorization": "Basic " + base64.b64encode(f"{write}:".encode()).decode()}
    body = {"batch": [{"event": "a"}]} if path in ("batch", "b") else {"event": "a"}
    for headers in (basic, {"Authorization": f"Bearer {write}"}, {"X-API-Key": write}):
        assert (await http.post(f"/v1/{path}", json=body, headers=headers)).json()["stored"] == 1
    assert (await http.post(f"/v1/{path}", json=body | {"writeKey": write})).json()["stored"] == 1
    assert refused(await http.post(f"/v1/{path}", json=body), 401) == "KEY_MISSING"
    assert refused(await http.post(f"/v1/{path}", json=body | {"writeKey": 7}), 401) == "KEY_MISSING"
    assert refused(await http.post(f"/v1/{path}", json=body | {"writeKey": read}), 403) == "WRONG_SCOPE"
    assert refused(await http.post(f"/v1/{path}", json=body, headers={"X-API-Key": "no"}), 401) == "KEY_UNKNOWN"


async def test_settings_need_a_write_key(keyed):
    """For an unknown key there are no settings."""
    http, write, read = keyed
    assert (await http.get(f"/v1/projects/{write}/settings")).status_code == 200
    assert refused(await http.get(f"/v1/projects/{read}/settings"), 403) == "WRONG_SCOPE"
    assert refused(await http.get("/v1/projects/nope/settings"), 401) == "KEY_UNKNOWN"
