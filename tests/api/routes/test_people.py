"""People over HTTP: read with their ids, merged and unmerged with an admin key."""

from __future__ import annotations

import httpx
import pytest

from lakebed import Analytics, Namespace, SystemClock
from lakebed.api import create_app
from lakebed.auth.keys import Keys


@pytest.fixture
async def shop(tmp_path):
    async with Namespace(tmp_path, Analytics) as namespace:
        await namespace.get("shop").identify("ann", {"plan": "pro"}, anonymous_id="a/1?x")
        await namespace.get("shop").track("seen", user_id="eve")
        yield namespace
        assert await namespace.get("shop").check() == []


@pytest.fixture
async def http(shop):
    keys = Keys(shop.root, SystemClock())
    tokens = {scope: keys.create("shop", scope)[1] for scope in ("write", "read", "admin")}
    transport = httpx.ASGITransport(app=create_app(shop), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        client.as_ = {scope: {"Authorization": f"Bearer {token}"} for scope, token in tokens.items()}
        yield client


async def test_a_person(http):
    """Any id of a person works, also with characters that URLs escape; an unknown id is 404."""
    for path in ("/people/ann", "/people/a%2F1%3Fx"):
        response = await http.get(path, headers=http.as_["read"])
        assert response.status_code == 200, response.text
        assert (response.json()["person_id"], response.json()["traits"]) == ("ann", {"plan": "pro"})
        assert response.json()["history"]["plan"][0]["value"] == "pro"
    assert (await http.get("/people/nobody", headers=http.as_["read"])).status_code == 404
    past = await http.get("/people/ann?as_of=2001-01-01", headers=http.as_["read"])
    assert past.status_code == 404
    assert (await http.get("/people/ann?as_off=2001-01-01", headers=http.as_["read"])).status_code == 400


async def test_merge_and_unmerge(http):
    """An admin merges two people and undoes it; both are in the audit."""
    merged = await http.post(
        "/people/merge", json={"a": "ann", "b": "eve", "why": "one card"}, headers=http.as_["admin"]
    )
    assert merged.status_code == 200, merged.text
    assert (await http.get("/people/eve", headers=http.as_["read"])).json()["person_id"] == "ann"
    repeated = await http.post("/people/merge", json={"a": "eve", "b": "ann"}, headers=http.as_["admin"])
    assert (repeated.status_code, repeated.json()["error"]["code"]) == (409, "INVALID_MERGE")
    undone = await http.post("/people/unmerge", json={"merge_id": merged.json()["id"]}, headers=http.as_["admin"])
    assert undone.status_code == 200, undone.text
    assert (await http.get("/people/eve", headers=http.as_["read"])).json()["person_id"] == "eve"
    audit = (await http.get("/people/merges", headers=http.as_["read"])).json()
    assert [(entry["kind"], entry["effect"], entry["why"]) for entry in audit] == [
        ("unmerge", "undone", None),
        ("merge", "undone", "one card"),
        ("identify", "merged", None),
    ]
    assert len((await http.get("/people/merges?limit=1&id=ann", headers=http.as_["read"])).json()) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":"x"}', b'{"a":1,"b":"y"}', b'{"a":"x","b":"y","c":1}', b"\xff"])
async def test_invalid_bodies_are_400(http, body):
    """Nothing is changed."""
    refused = await http.post("/people/merge", content=body, headers=http.as_["admin"])
    assert refused.status_code == 400, refused.text
    assert (await http.get("/people/merges?limit=x", headers=http.as_["read"])).status_code == 400


async def test_scopes(http):
    """Reading needs a read key, merging an admin key, and neither answers without one."""
    for scope in ("write", "read"):
        for path, body in (("/people/merge", {"a": "ann", "b": "eve"}), ("/people/unmerge", {"merge_id": "x"})):
            assert (await http.post(path, json=body, headers=http.as_[scope])).status_code == 403
    for path in ("/people/ann", "/people/merges"):
        assert (await http.get(path, headers=http.as_["write"])).status_code == 403
        assert (await http.get(path)).status_code == 401
