"""What is called on every client, and the rows that must come of it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

_CONTEXT = {"ip": "203.0.113.7", "locale": "de-AT", "app": {"name": "shop", "version": "3.1"}}
_AT = "2026-03-01T12:34:56.789+00:00"
_DEEP = {"text": "Größe ✓ “x” \n \u2028", "float": 19.99, "whole": 2**53 - 1, "none": None, "list": [1, [2, {"a": []}]]}

# Segment's names. Every client can call all of these; a browser cannot say who, when and where else it is called from.
CALLS: list[dict[str, Any]] = [
    {"type": "identify", "userId": "ann", "traits": {"email": "ann@example.com", "plan": "pro", **_DEEP}},
    {"type": "track", "userId": "ann", "event": "Order Completed", "properties": {"revenue": 9.5, **_DEEP}},
    {"type": "track", "anonymousId": "anon-1", "event": "Seen", "timestamp": _AT, "context": _CONTEXT},
    {"type": "page", "userId": "ann", "category": "Docs", "name": "Home", "properties": {"url": "https://x.test/?a=1"}},
    {"type": "screen", "userId": "ann", "category": "Shop", "name": "Cart", "properties": {"items": 3}},
    {"type": "group", "userId": "ann", "groupId": "acme", "traits": {"name": "Acme", "employees": 42}},
    {"type": "alias", "userId": "ann", "previousId": "anon-1"},
]


def many(count: int) -> list[dict[str, Any]]:
    """Track calls that are told apart by a number."""
    return [{"type": "track", "userId": "ann", "event": "Clicked", "properties": {"n": n}} for n in range(count)]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    """Those of `many` that were stored, sorted."""
    return sorted(json.loads(event["properties"])["n"] for event in events)


def check(event: dict[str, Any], call: dict[str, Any]) -> None:
    """The row has every field of the call, and the fields that the client and the server add."""
    columns = {"userId": "user_id", "anonymousId": "anonymous_id", "groupId": "group_id", "type": "type"}
    for name, column in columns.items():
        if name in call:
            assert event[column] == call[name], (column, event, call)
    assert event["event"] == (call.get("event") or call.get("name"))
    expected = dict(call.get("properties") or call.get("traits") or {})
    expected |= {name: call[name] for name in ("category", "previousId") if name in call}
    properties = json.loads(event["properties"])
    properties.pop("name", None) if call["type"] in ("page", "screen") else None  # clients put the name here, too
    assert properties == expected, (event, call)
    context = json.loads(event["context"])
    assert {name: context.get(name) for name in call.get("context", {})} == call.get("context", {})
    assert context["library"]["name"]
    assert event["message_id"]
    if "timestamp" in call:
        delay = datetime.fromisoformat(event["timestamp"]) - datetime.fromisoformat(call["timestamp"])
        # The correction of the client's clock adds the time that sending took.
        assert abs(delay.total_seconds()) < 5, (event, call)
