"""Bitmaps of days against the events that they are made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import MadeUp
from oracles import plain
from pyroaring import BitMap
from report_cases import stages

from lakebed import Analytics, ManualClock
from lakebed.query.calendar import Calendar
from lakebed.query.presence import _visits

START = datetime(2025, 12, 20, tzinfo=UTC)


@st.composite
def questions(draw):
    """What bitmaps can answer: of lifecycle, and of stickiness."""
    grain = draw(st.sampled_from(["day", "week", "month"]))
    calendar = {"grain": grain, "week_start": draw(st.sampled_from(["monday", "sunday", "saturday"]))}
    first, length = draw(st.integers(-60, 60)), draw(st.integers(0, 100))
    start, end = START + timedelta(first), START + timedelta(first + length)
    within = draw(st.sampled_from([{}, {"start": start}, {"end": end}, {"start": start, "end": end}]))
    intervals = [None, "week", "month"][: {"day": 3, "week": 1, "month": 1}[grain]]
    return calendar | within, {"interval": draw(st.sampled_from(intervals))}


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rng=st.randoms(use_true_random=False),
    asked=st.lists(questions(), min_size=2, max_size=2),
    state=st.sampled_from(["log", "both tiers", "merged", "unmerged"]),
)
async def test_they_say_what_the_events_say(tmp_path_factory, rng, asked, state):
    """All of a range by whole days, in any state: the rollup answers, and raw events and plain Python say the same."""
    made = MadeUp(rng)
    root = tmp_path_factory.mktemp("presence")
    async for stage in stages(root, made.events, merges=made.merges, only=(state,), untrusted=()):
        for common, further in asked:
            for report, given_ in (("lifecycle", common), ("stickiness", common | further)):
                found = await stage.ask(report, **given_)
                assert found.tiers == ("L2",)
                raw = await stage.ask(report, **given_, where="true")
                assert found.arrow().equals(raw.arrow()), (report, given_)
                rows = plain(report, stage.events, stage.shop.clock.now_us(), **given_)
                assert [tuple(row) for row in found] == [pytest.approx(row) for row in rows]


@pytest.mark.parametrize(
    "asked",
    [
        {"event": "visit"},
        {"where": "true"},
        {"cohort": "all"},
        {"tz": "Europe/Berlin"},
        {"grain": "hour"},
        {"end": "2026-01-03T12:00Z"},
        {"as_of": "2026-01-03T12:00Z"},
    ],
)
async def test_what_they_do_not_know_raw_events_answer(tmp_path, asked):
    """Names, conditions, people, other zones, parts of a day, and other moments are not in them."""
    clock = ManualClock(datetime(2026, 1, 3, 12, tzinfo=UTC))
    async with Analytics("shop", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        await shop.save_cohort("all", {"did": "visit"})
        await shop.track("visit", user_id="ann", timestamp="2026-01-01")
        clock.advance(1)
        assert (await shop.stickiness(**asked)).tiers == ("L1",)
        assert (await shop.lifecycle(**{"grain": "day"} | asked)).tiers == ("L1",)
        assert await shop.check() == []


def test_people_with_high_numbers_are_not_counted_in_memory():
    """Counting takes memory by the highest number, not by how many there are."""
    high, low = BitMap([5, 30_000_000]), BitMap([5])
    assert _visits([(1, high)], Calendar(), "day", None, None) is None
    assert _visits([(1, low), (3, low)], Calendar(), "day", None, None).to_pylist()[1]["people"] == 1
