"""Gate: keys over HTTP: how they are shown, what they may do, how much they may send."""

from __future__ import annotations

import base64
import logging

import httpx
import pytest

from lakebed import Analytics, ManualClock, Namespace
from lakebed.api import create_app
from lakebed.auth.keys import Keys, Limits

EVENT = {"event": "Seen"}


def client(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def basic(user, password=""):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def error(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def keys(tmp_path, clock):
    return Keys(tmp_path, clock)


@pytest.fixture
async def app(tmp_path, clock):
    limits = Limits(requests_per_s=50, events_per_s=100, burst_s=2)
    async with Namespace(tmp_path, Analytics) as namespace:
        yield create_app(namespace, clock=clock, limits=limits)


@pytest.fixture
async def http(app):
    async with client(app) as http_client:
        yield http_client


async def test_a_key_is_accepted_in_three_headers(http, keys):
    """Bearer, Basic with the key as user name (any password), X-API-Key; schemes in any case."""
    _, token = keys.create("shop", "write")
    variants = [
        {"authorization": f"Bearer {token}"},
        {"authorization": f"bearer {token}"},
        {"authorization": basic(token)},
        {"authorization": basic(token, "anything")},
        {"authorization": basic(token).replace("Basic", "basic")},
        {"x-api-key": token},
        {"authorization": "Digest x", "x-api-key": token},
    ]
    for seq, headers in enumerate(variants):
        assert (await http.post("/track", json=EVENT, headers=headers)).json()["seq"] == seq


async def test_a_key_is_accepted_in_the_body(app, keys):
    """For clients that send no header; a header takes precedence, also with an invalid key."""
    from lakebed.api.auth import Caller, HTTPConnection
    from lakebed.api.errors import Refusal

    key, token = keys.create("shop", "write")
    gate = app.state.auth
    bare = HTTPConnection({"type": "http", "headers": []})
    assert gate.admit(bare, "write", write_key=token) == Caller("shop", key.id, "write")
    other = HTTPConnection({"type": "http", "headers": [(b"x-api-key", b"lbw_bad")]})
    for request, write_key in ((other, token), (bare, "bad"), (bare, None), (bare, "")):
        with pytest.raises(Refusal) as caught:
            gate.admit(request, "write", write_key=write_key)
        assert caught.value.status == 401


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "KEY_MISSING"),
        ({"authorization": "Bearer "}, "KEY_MISSING"),
        ({"authorization": "Bearer lbw_000000000000_" + "0" * 40}, "KEY_UNKNOWN"),
        ({"authorization": "Bearer \xff"}, "KEY_UNKNOWN"),
        ({"authorization": basic("anything")}, "KEY_UNKNOWN"),
        ({"authorization": "Basic !!!"}, "KEY_MISSING"),
        ({"x-api-key": "anything"}, "KEY_UNKNOWN"),
    ],
)
async def test_a_missing_or_invalid_key_is_401(http, keys, headers, code):
    """The error says how to send a key; no challenge makes a browser ask its user for a password."""
    keys.create("shop", "write")
    response = await http.post("/track", json=EVENT, headers={k: v.encode("latin-1") for k, v in headers.items()})
    assert error(response) == (401, code)
    assert response.headers["www-authenticate"] == 'Bearer realm="lakebed"'
    assert "X-API-Key" in response.json()["error"]["message"]


async def test_scopes(http, keys):
    """A write key may not read, a read key may not write, an admin key may do both; 403 names the scope needed."""
    tokens = {scope: keys.create("shop", scope)[1] for scope in ("write", "read", "admin")}
    statuses = {}
    for scope, token in tokens.items():
        headers = {"x-api-key": token}
        write_response = await http.post("/track", json=EVENT, headers=headers)
        read_response = await http.get("/stats", headers=headers)
        statuses[scope] = (write_response.status_code, read_response.status_code)
        for response in (write_response, read_response):
            if response.status_code != 200:
                assert error(response) == (403, "WRONG_SCOPE")
                assert response.json()["error"]["details"] == {
                    "scope": scope,
                    "needs": "write" if response is write_response else "read",
                }
    assert statuses == {"write": (200, 403), "read": (403, 200), "admin": (200, 200)}


async def test_revoked_and_rotated_keys_are_401(http, keys, clock):
    """Within a second; a server whose keys are all revoked still requires one."""
    key, token = keys.create("shop", "write")
    assert (await http.post("/track", json=EVENT, headers={"x-api-key": token})).status_code == 200
    _, new = keys.rotate(key.id, grace_s=10)
    clock.advance(9)
    for good in (token, new):
        assert (await http.post("/track", json=EVENT, headers={"x-api-key": good})).status_code == 200
    clock.advance(1)
    assert error(await http.post("/track", json=EVENT, headers={"x-api-key": token})) == (401, "KEY_UNKNOWN")
    keys.revoke(key.id)
    clock.advance(1)
    assert error(await http.post("/track", json=EVENT, headers={"x-api-key": new})) == (401, "KEY_UNKNOWN")
    assert error(await http.post("/track", json=EVENT)) == (401, "KEY_MISSING")


async def test_the_first_key_closes_a_running_server(http, app, keys, clock, tmp_path):
    """Before it is created any write key works and writes to "default"; afterwards only the created key does."""
    assert app.state.auth.keyless
    assert (await http.post("/track", json=EVENT, headers={"authorization": basic("any")})).status_code == 200
    keys.create("shop", "write")
    clock.advance(1)
    assert not app.state.auth.keyless
    assert (await http.post("/track", json=EVENT, headers={"authorization": basic("any")})).status_code == 401
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["default"]


async def test_a_server_of_one_object(tmp_path, keys):
    """A key of another object is 403, whatever its scope; a key of the served object works."""
    _, other = keys.create("sam", "admin")
    _, own = keys.create("tom", "read")
    async with Analytics("tom", root=tmp_path) as tom, client(create_app(tom)) as http:
        assert error(await http.get("/stats", headers={"x-api-key": other})) == (403, "WRONG_OBJECT")
        assert (await http.get("/stats", headers={"x-api-key": own})).status_code == 200


async def test_a_damaged_key_file_is_503(http, keys, tmp_path):
    """No request is admitted while keys cannot be checked; the answer shows no path."""
    _, token = keys.create("shop", "write")
    (tmp_path / "keys.db").write_bytes(b"x" * 8192)
    response = await http.post("/track", json=EVENT, headers={"x-api-key": token})
    assert error(response) == (503, "KEYS_UNAVAILABLE")
    assert str(tmp_path) not in response.text


async def test_secrets_are_not_logged_nor_answered(http, keys, caplog):
    """Whatever happens to a request, no log line and no answer has its key."""
    caplog.set_level(logging.DEBUG)
    _, token = keys.create("shop", "read")
    secret = token.rpartition("_")[2]
    for headers in ({"x-api-key": token}, {"authorization": basic(token)}, {"authorization": f"Bearer {token}x"}):
        for path in ("/stats", "/track", "/nope"):
            response = await http.post(path, content=b"{", headers=headers)
            assert secret not in response.text
            assert secret not in str(response.headers)
    assert secret not in caplog.text


async def test_the_key_in_a_path_is_not_logged(http, keys, tmp_path, caplog):
    """The settings of Segment's browser library have the key in their path: no log has it, whatever fails."""
    caplog.set_level(logging.DEBUG)
    _, token = keys.create("shop", "write")
    path = f"/v1/projects/{token}/settings"
    assert (await http.get(path)).status_code == 200
    assert (await http.post(path)).status_code == 405
    (tmp_path / "keys.db").write_bytes(b"x" * 8192)
    http._transport.app.state.auth._keys._check_at = 0.0
    assert (await http.get(path)).status_code == 503
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("lakebed")]
    assert any("/v1/projects/{write_key}/settings" in line for line in messages)
    assert not [line for line in messages if token in line]


# Rates


async def test_requests_per_second(http, keys, clock):
    """After the burst, 429 has Retry-After and the limit; then a request is admitted again."""
    _, token = keys.create("shop", "read")
    _, other = keys.create("shop", "read")
    await http.post("/track", json=EVENT)
    headers = {"x-api-key": token}
    codes = [(await http.get("/stats", headers=headers)).status_code for _ in range(101)]
    assert codes == [404] * 100 + [429]
    response = await http.get("/stats", headers=headers)
    assert error(response) == (429, "RATE_LIMITED")
    assert response.headers["retry-after"] == "1"
    assert {k: v for k, v in response.headers.items() if k.startswith("x-ratelimit")} == {
        "x-ratelimit-limit": "100",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1",
    }
    assert (await http.get("/stats", headers={"x-api-key": other})).status_code == 404, "each key has its own"
    clock.advance(float(response.headers["retry-after"]))
    assert (await http.get("/stats", headers=headers)).status_code == 404


async def test_events_per_second(app, keys, clock):
    """A batch may exceed the rate, and the next requests wait; no batch is too large forever; the average holds."""
    from lakebed.api.auth import HTTPConnection
    from lakebed.api.errors import Refusal

    gate = app.state.auth
    _, token = keys.create("shop", "admin")
    request = HTTPConnection({"type": "http", "headers": [(b"x-api-key", token.encode())]})
    caller = gate.admit(request, "write")
    gate.charge(caller, 450)  # 200 were saved up
    with pytest.raises(Refusal) as caught:
        gate.admit(request, "write")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "3")
    gate.admit(request, "read")
    clock.advance(2.5)
    with pytest.raises(Refusal):
        gate.admit(request, "write")
    clock.advance(0.5)
    gate.admit(request, "write")


async def test_limits_of_a_key(http, keys, clock):
    """They take precedence over the server's, and a change is effective within a second."""
    key, token = keys.create("shop", "read", limits=Limits(requests_per_s=1, burst_s=3))
    headers = {"x-api-key": token}
    assert [(await http.get("/stats", headers=headers)).status_code for _ in range(4)] == [404, 404, 404, 429]
    keys.limit(key.id, Limits(requests_per_s=10))
    clock.advance(1)
    assert [(await http.get("/stats", headers=headers)).status_code for _ in range(12)] == [404] * 10 + [429] * 2


async def test_the_size_of_a_body(http, keys):
    """A body above the key's own limit is 413 before it is read."""
    _, token = keys.create("shop", "write", limits=Limits(max_body_bytes=40))
    headers = {"x-api-key": token}
    assert (await http.post("/track", json=EVENT, headers=headers)).status_code == 200
    response = await http.post("/track", content=b'{"event": "Seen", "properties": {"x": 1}}', headers=headers)
    assert error(response) == (413, "BODY_TOO_LARGE")
    assert response.json()["error"]["details"] == {"limit": 40}
