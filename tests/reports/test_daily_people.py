"""Bitmaps of days against the events that they come from."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from pyroaring import BitMap

from lakebed import Analytics, ManualClock
from lakebed.reports.calendar import Calendar
from lakebed.reports.lifecycle import _stickiness
from tests.reports.made_up import MadeUp

pytestmark = pytest.mark.integration

CALENDARS = [("day", None), ("day", "week"), ("day", "month"), ("week", None), ("month", None)]


async def compare(shop, rng, made):
    """Compare each answer of the rollup with that of the events."""
    for grain, interval in CALENDARS:
        week_start = rng.choice(["monday", "sunday", "saturday"])
        question = {"grain": grain, "week_start": week_start} | made.whole_range()
        for report, further in (("lifecycle", {}), ("stickiness", {"interval": interval})):
            result = await getattr(shop, report)(**question, **further)
            raw = await getattr(shop, report)(**question, **further, where="true")
            assert (result.tiers, raw.tiers) == (("L2",), ("L1",))
            assert result.arrow().equals(raw.arrow()), (report, question, further)


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.slow)])
async def test_bitmaps_and_raw_events_give_the_same_rows(tmp_path, seed):
    """For all events of whole days the rollup is read; raw events give the same rows and types, also after merges."""
    rng = Random(seed)
    made = MadeUp(rng, people=30, maximum=300)
    clock = ManualClock(datetime(2026, 6, 1, tzinfo=UTC))
    async with Analytics("shop", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        await shop.batch([event | {"messageId": str(at)} for at, event in enumerate(made.events)])
        await compare(shop, rng, made)
        assert made.merges
        for pair in made.merges:
            await shop.merge(*pair)
        await compare(shop, rng, made)
        assert await shop.check() == []


@pytest.mark.parametrize(
    "question",
    [
        {"event": "visit"},
        {"where": "true"},
        {"cohort": "all"},
        {"tz": "Europe/Berlin"},
        {"grain": "hour"},
        {"end": "2026-01-03T12:00Z"},
        {"as_of": "2026-01-03T12:00:00.5Z"},
    ],
)
async def test_raw_events_are_read_where_bitmaps_cannot_tell(tmp_path, question):
    """Names, conditions, cohorts, other zones, parts of a day, and other moments are not in the bitmaps."""
    clock = ManualClock(datetime(2026, 1, 3, 12, tzinfo=UTC))
    async with Analytics("shop", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        await shop.save_cohort("all", {"did": "visit"})
        await shop.track("visit", user_id="ann", timestamp="2026-01-01")
        clock.advance(1)
        assert (await shop.stickiness(**question)).tiers == ("L1",)
        assert (await shop.lifecycle(**{"grain": "day"} | question)).tiers == ("L1",)
        assert await shop.check() == []


def test_people_with_high_numbers_are_not_counted_in_memory():
    """Counting would need memory in proportion to the highest number, so it is not done for high numbers."""
    high, low = BitMap([5, 30_000_000]), BitMap([5])
    assert _stickiness([(1, high)], Calendar(), "day", None, None) is None
    assert _stickiness([(1, low), (3, low)], Calendar(), "day", None, None).to_pylist()[1]["people"] == 1
