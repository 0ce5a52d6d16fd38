"""Reports split by a property, whose name may be any name that our SQL uses."""

from __future__ import annotations

import pytest

from lakebed import Analytics

ASKED = [
    ("segmentation", {"events": ["Seen", "Bought"]}, ["n", "nth", "key_0", "period"]),
    ("retention", {"start_event": "Seen"}, ["n", "nth", "c", "value", "started"]),
    ("lifecycle", {}, ["n", "nth", "value", "fresh"]),
    ("funnel", {"steps": ["Seen", "Bought"]}, ["_nth", "value", "held"]),
    ("sessions", {}, ["n", "named"]),
    ("performance", {"grain": "day"}, ["key_0", "ms", "failed"]),
    ("errors", {}, ["key_0", "failed", "moment", "person"]),
    ("paths", {}, ["k", "us"]),
]


@pytest.fixture
async def shop(tmp_path):
    """An object with two plans on two days, as properties with all these names."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        for who, plan, day in (("ann", "free", 1), ("bob", "pro", 2), ("cy", "pro", 2)):
            for hour, event in enumerate(("Seen", "Bought")):
                request = {"duration_ms": 5 * day, "status_code": 500}
                called = dict.fromkeys({name for _, _, names in ASKED for name in (*names, "plan")}, plan)
                when = f"2026-01-0{day}T0{hour}:00:00Z"
                await shop.track(event, called | request, user_id=who, timestamp=when)
        yield shop


@pytest.mark.integration
async def test_a_property_of_any_name_splits_a_report(shop):
    """Split by a property of each name, every report has the same rows, in the same order."""
    for report, arguments, names in ASKED:
        split = await getattr(shop, report)(by="plan", **arguments)
        assert {"free", "pro"} <= {value for row in split for value in row}, report
        for name in names:
            result = await getattr(shop, report)(by=name, **arguments)
            assert [tuple(row) for row in result] == [tuple(row) for row in split], (report, name)
