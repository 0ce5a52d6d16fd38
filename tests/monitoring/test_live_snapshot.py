"""The pulse: what an object is doing now, small, and without asking the archive."""

from __future__ import annotations

import json

import msgspec
import pytest

from lakebed import Analytics
from lakebed.clock import ManualClock
from lakebed.tiers.counters.counters import Counters


@pytest.fixture
async def opened(tmp_path):
    clock = ManualClock()
    async with Analytics("tom", root=tmp_path, clock=clock, headroom_bytes=0, segment_events=50) as tom:
        yield tom, clock
        assert await tom.check() == []


async def test_seconds_and_minutes_are_sliding_windows(opened):
    """Each event stands in the second and the minute in which it was received, and leaves the window at its end."""
    tom, clock = opened
    await tom.track("A")
    clock.advance(10)
    await tom.batch([{"event": "B"}] * 3)
    clock.advance(0.5)
    pulse = await tom.pulse()
    assert {at: count for at, count in enumerate(pulse.seconds) if count} == {49: 1, 59: 3}
    assert (pulse.minutes[-1], sum(pulse.minutes)) == (4, 4)
    clock.advance(55)
    pulse = await tom.pulse()
    assert {at: count for at, count in enumerate(pulse.seconds) if count} == {4: 3}
    assert {at: count for at, count in enumerate(pulse.minutes) if count} == {58: 1, 59: 3}
    clock.advance(3600)
    pulse = await tom.pulse()
    assert sum(pulse.minutes) == pulse.names == pulse.last_hour == 0
    assert pulse.top_hour == []
    assert pulse.top_ever == [("B", 3), ("A", 1)]


def test_the_parts_of_a_spread_add_up_to_the_counter():
    """Whatever came when, the parts together are the counter's value; more than 1,024 increments too."""
    clock = ManualClock()
    counters = Counters(clock, 10)
    assert counters.spread("k", 60.0, 4) == [0, 0, 0, 0]
    for step in range(4000):
        counters.incr("k", step % 3, 60.0)
        clock.advance(0.02)
        if step % 97 == 0:
            assert sum(counters.spread("k", 60.0, 7)) == counters.get("k")
    assert sum(counters.spread("k", 60.0, 7)) == counters.get("k") > 0
    clock.advance(59.99)
    assert counters.spread("k", 60.0, 4) == [counters.get("k"), 0, 0, 0]


async def test_the_twelve_newest_events_come_first(opened):
    """The last twelve, newest first, also when they were sealed or the object was opened again; then new ones."""
    tom, clock = opened
    await tom.batch([{"event": f"e{number}", "userId": f"u{number}"} for number in range(60)])
    expected = [f"e{number}" for number in range(59, 47, -1)]
    assert [event.event for event in (await tom.pulse()).newest] == expected
    assert [event.seq for event in (await tom.pulse()).newest] == list(range(59, 47, -1))
    await tom.archive()
    await tom.close()
    await tom.open()
    assert [event.event for event in (await tom.pulse()).newest] == expected
    await tom.identify("ann", {"plan": "pro"})
    clock.advance(1)
    first, second = (await tom.pulse()).newest[:2]
    assert (first.type, first.event, first.person, first.seq) == ("identify", None, "ann", 60)
    assert second.event == "e59"


async def test_a_snapshot_has_less_than_10_kb(opened):
    """Ten thousand names of 200 characters and long ids: a pulse still has less than 10 KB, and no properties."""
    tom, _ = opened
    events = [
        {"event": f"{number:0200}", "userId": f"{number:0256}", "properties": {"secret": "x" * 1000}}
        for number in range(10_000)
    ]
    await tom.batch(events)
    pulse = await tom.pulse()
    encoded = msgspec.json.encode(pulse)
    assert len(encoded) < 10_000
    assert b"secret" not in encoded
    assert pulse.names == 10_000
    assert len(pulse.top_hour) == len(pulse.top_ever) == 10
    assert json.loads(encoded)["newest"][0]["person"] == f"{9999:0256}"[:100]
