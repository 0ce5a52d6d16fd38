"""JSON bodies: every route has the same error for a body that is not JSON, and for JSON of another form."""

from __future__ import annotations

import httpx
import pytest

from lakebed import Analytics
from lakebed.api import create_app


@pytest.fixture
async def http(tmp_path):
    async with Analytics("tom", root=tmp_path) as tom:
        await tom.track("Seen", user_id="ann")
        transport = httpx.ASGITransport(app=create_app(tom))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client
        assert await tom.check() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/query"),
        ("POST", "/metrics/performance"),
        ("POST", "/reports/funnel"),
        ("POST", "/templates/active-users"),
        ("POST", "/billing/usage"),
        ("PUT", "/billing/price-books/default"),
        ("POST", "/billing/invoices"),
        ("PUT", "/billing/quotas"),
        ("PUT", "/cohorts/buyers"),
        ("PUT", "/datasets/visits"),
        ("POST", "/client/v4/accounts/1/analytics_engine/visits"),
        ("POST", "/people/merge"),
        ("POST", "/people/unmerge"),
        ("POST", "/deadletters/replay"),
    ],
)
async def test_invalid_bodies(http, method, path):
    """400 INVALID_JSON if it is not JSON or not UTF-8, 400 INVALID_BODY for other JSON; nothing is changed."""
    for body, code in (
        (b"{", "INVALID_JSON"),
        (b'{"a": "\xff"}', "INVALID_JSON"),
        (b'"text"', "INVALID_BODY"),
        (b"[1]", "INVALID_BODY"),
    ):
        answer = await http.request(method, path, content=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code), (body[:20], answer.text)
        assert error["message"].startswith("The body is no")
