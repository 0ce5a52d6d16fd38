from __future__ import annotations

from lakebed.clock import ManualClock
from lakebed.events.batch import EventBatch
from lakebed.events.event import Event
from lakebed.ingest.live_counters import LiveCounters
from lakebed.monitoring.live_snapshot import Stats, stats
from lakebed.tiers.counters.counters import Counters


def test_stats_have_sliding_windows_and_totals():
    """The last minute and hour slide, people fall silent, totals stay; the most frequent name comes first."""
    clock = ManualClock()
    counters = Counters(clock, 1000)
    live = LiveCounters(counters, active_ttl_s=300)
    live.feed(EventBatch.of([Event(event="View", user_id="a"), Event(event="View", anonymous_id="b")]), 0)
    live.feed(EventBatch.of([Event(event="Order", user_id="a"), Event(type="identify", user_id="a")]), 0)

    def now() -> Stats:
        return stats(counters, received=6, stored=4, duplicate=1, rejected=1, next_seq=4, watermark=2)

    first = now()
    assert list(first.totals.items()) == [("View", 2), ("Order", 1)]
    assert first.events_last_minute == first.events_last_hour == first.totals
    assert (first.last_minute, first.last_hour, first.active) == (4, 4, 2)
    assert (first.received, first.stored, first.duplicate, first.rejected) == (6, 4, 1, 1)
    assert (first.next_seq, first.watermark) == (4, 2)
    clock.advance(200)
    live.feed(EventBatch.of([Event(event="View", user_id="c")]), 0)
    later = now()
    assert (later.last_minute, later.last_hour, later.active) == (1, 5, 3)
    assert later.events_last_minute == {"View": 1}
    clock.advance(150)
    assert now().active == 1
    clock.advance(4000)
    last = now()
    assert (last.last_minute, last.last_hour, last.active) == (0, 0, 0)
    assert last.events_last_hour == {}
    assert last.totals == {"View": 3, "Order": 1}
