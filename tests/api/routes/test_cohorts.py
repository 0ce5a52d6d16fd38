"""Cohorts over HTTP: saved with an admin key, shown with their size, paged, kept while others need them."""

from __future__ import annotations

import httpx
import pytest

from lakebed import Analytics, Namespace, SystemClock
from lakebed.api import create_app
from lakebed.auth.keys import Keys

pytestmark = pytest.mark.integration


@pytest.fixture
async def shop(tmp_path):
    async with Namespace(tmp_path, Analytics) as namespace:
        for user in ("ann", "bob", "eve"):
            await namespace.get("shop").track("Order", {"revenue": len(user)}, user_id=user)
        await namespace.get("shop").merge("ann", "eve")
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


async def test_saved_shown_used_and_deleted(http):
    """A cohort has versions, a size and people; merged ones are one."""
    for revenue, version in ((5, 1), (1, 2)):
        body = {"did": {"event": "Order", "where": f"json_extract(properties, '$.revenue')::INT > {revenue}"}}
        saved = await http.put("/cohorts/big/buyers", json=body, headers=http.as_["admin"])
        assert (saved.status_code, saved.json()["version"]) == (200, version), saved.text
    cohort = (await http.get("/cohorts/big/buyers", headers=http.as_["read"])).json()
    assert cohort == saved.json() | {"people": 2}
    assert (await http.get("/cohorts", headers=http.as_["read"])).json() == [saved.json()]
    page = await http.get("/cohorts/big/buyers/people?limit=1", headers=http.as_["read"])
    assert [row[0] for row in page.json()["rows"]] == ["ann"]
    page = await http.get("/cohorts/big/buyers/people?after=ann", headers=http.as_["read"] | {"Accept": "text/csv"})
    assert page.text.splitlines()[1].startswith("bob,")
    assert (await http.delete("/cohorts/big/buyers", headers=http.as_["admin"])).status_code == 204
    assert (await http.get("/cohorts/big/buyers", headers=http.as_["read"])).status_code == 404
    assert (await http.delete("/cohorts/big/buyers", headers=http.as_["admin"])).status_code == 404


async def test_a_cohort_that_others_use_is_not_deleted(http):
    """409 names the others."""
    await http.put("/cohorts/a", json={"did": "Order"}, headers=http.as_["admin"])
    await http.put("/cohorts/b", json={"not": {"cohort": "a"}}, headers=http.as_["admin"])
    response = await http.delete("/cohorts/a", headers=http.as_["admin"])
    assert (response.status_code, response.json()["error"]["details"]) == (409, {"used_by": "b"})


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_only_admins_save(http, scope):
    """A cohort is a part of reports that others read."""
    assert (await http.put("/cohorts/a", json={"did": "x"}, headers=http.as_[scope])).status_code == 403
    assert (await http.delete("/cohorts/a", headers=http.as_[scope])).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("PUT", "/cohorts/x", {"any": [{"did": "a", "when": 1}]}, "any[0]"),
        ("PUT", "/cohorts/x", {"did": {"where": "1=1) UNION SELECT 1 --"}}, "syntax error"),
        ("PUT", "/cohorts/x", {"did": {"where": "getenv('HOME') = ''"}}, "not allowed"),
        ("GET", "/cohorts/x/people?limit=0", None, "from 1 to"),
        ("GET", "/cohorts/x/people?of=0", None, "no parameter 'of'"),
        ("GET", "/cohorts/x/people", None, "no cohort 'x'"),
    ],
)
async def test_invalid_requests_are_400(http, method, path, body, message):
    """With the invalid part; nothing is saved."""
    answer = await http.request(method, path, json=body, headers=http.as_["admin"])
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert (await http.get("/cohorts", headers=http.as_["read"])).json() == []
