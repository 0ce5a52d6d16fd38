"""Billing over HTTP: usage, price books, invoices and quotas, with text for every number that must be exact."""

from __future__ import annotations

import json

import httpx
import pytest

from lakebed import Namespace
from lakebed.api import create_app

BOOK = {"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.015"}}}


@pytest.fixture
async def client(tmp_path):
    async with Namespace(tmp_path, headroom_bytes=0) as namespace:
        app = create_app(namespace)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                yield client
        assert namespace.check() == []


async def test_from_usage_to_an_invoice(client):
    """The way of a month: usage by plain events, a price book, a draft, the invoice, a quota."""
    properties = {"organization_id": "acme", "sku": "calls", "quantity": "0.1", "unit": "call"}
    event = {"event": "Used", "userId": "u", "timestamp": "2025-01-15T00:00:00Z", "properties": properties}
    await client.post("/track/batch", json=[event] * 3)
    request = {"organizationId": "acme", "start": "2025-01-01", "end": "2025-02-01"}
    assert (await client.post("/billing/usage", json=request)).json() == {
        "organizationId": "acme",
        "period": {"start": "2025-01-01", "end": "2025-02-01"},
        "items": [{"sku": "calls", "quantity": "0.3", "unit": "call"}],
        "total": {"quantity": "0.3"},
    }
    saved = await client.put("/billing/price-books/default", json=BOOK)
    assert (saved.status_code, saved.json()["version"]) == (200, 1)
    priced = (await client.post("/billing/usage", json=request | {"priceBook": "default"})).json()
    assert priced["items"][0]["cost"] == "0"
    assert priced["total"] == {"quantity": "0.3", "cost": "0", "currency": "EUR"}
    body = {"organizationId": "acme", "period": "2025-01"}
    draft = (await client.post("/billing/invoices", json=body)).json()
    assert (draft["issued"], draft["lines"][0]["quantity"], draft["lines"][0]["amount"]) == (False, "0.3", "0.00")
    issued = (await client.post("/billing/invoices", json=body | {"issue": True})).json()
    assert (await client.get("/billing/invoices?organizationId=acme")).json() == [issued]
    assert (await client.get("/billing/invoices?organizationId=other")).json() == []
    assert (await client.get("/billing/price-books")).json()[0]["document"] == BOOK
    quota = {"organizationId": "acme", "sku": "calls", "limit": "10"}
    assert (await client.put("/billing/quotas", json=quota)).status_code == 204
    assert (await client.get("/billing/quotas")).json()[0]["quota"]["limit"] == "10"


async def test_a_corrected_sum_of_zero_has_no_exponent(client):
    """Zero is written in digits, in JSON and in CSV."""
    usage = {"organization_id": "acme", "sku": "calls", "unit": "call"}
    events = [{"event": "Used", "properties": usage | {"quantity": quantity}} for quantity in ("7", "-7")]
    await client.post("/track/batch", json=events)
    assert (await client.post("/reports/usage", json={})).json()["rows"][0][4] == "0.000000000"
    csv = await client.post("/reports/usage", json={}, headers={"Accept": "text/csv"})
    assert csv.text.splitlines()[1].endswith(",acme,calls,call,0.000000000,2")


async def test_over_rpc_every_amount_is_text(client):
    """As Cap'n Web's own client gets it: no float, no exponent; numbers with a fraction are refused as arguments."""

    async def ask(verb, *arguments):
        calls = [["push", ["pipeline", 0, [verb], list(arguments)]], ["pull", 1]]
        answer = await client.post("/rpc", content="\n".join(json.dumps(call) for call in calls))
        return json.loads(answer.text.split("\n")[0])[2]

    usage = {"organization_id": "acme", "sku": "calls", "quantity": "0.000000001", "unit": "call"}
    await client.post("/track", json={"event": "Used", "timestamp": "2025-01-15T00:00:00Z", "properties": usage})
    assert (await ask("savePriceBook", "default", BOOK))["version"] == 1
    (line,) = (await ask("invoice", "acme", "2025-01", {"issue": True}))["lines"][0]
    assert line == {"sku": "calls", "unit": "call", "quantity": "0.000000001", "amount": "0.00"}
    assert (await ask("invoices"))[0][0]["total"] == "0.00"
    assert (await ask("saveQuota", "acme", "calls", "0.0000001"))["limit"] == "0.0000001"
    assert (await ask("quotas"))[0][0]["used"] == "0"
    assert "not float" in (await ask("saveQuota", "acme", "calls", 0.5))[2]


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/billing/usage", {"organizationId": "a", "start": "soon", "end": "2025-01-01"}, "ISO 8601"),
        ("POST", "/billing/usage", {"organizationId": "a"}, "start"),
        ("PUT", "/billing/price-books/x", {"currency": "EUR"}, "must have currency and prices"),
        ("POST", "/billing/invoices", {"organizationId": "a", "period": "2025"}, "2026-01"),
        ("POST", "/billing/invoices", {"organizationId": "a", "period": "2025-01"}, "no price book"),
        ("PUT", "/billing/quotas", {"organizationId": "a", "sku": "b", "limit": 0}, "a limit above 0"),
    ],
)
async def test_invalid_requests_are_400(client, method, path, body, message):
    """With the allowed values."""
    await client.post("/track", json={"event": "x", "userId": "u"})
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
