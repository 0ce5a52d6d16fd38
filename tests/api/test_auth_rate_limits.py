"""Rates: whatever a key sends and whenever, what is let in stays within what it may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lakebed import ManualClock
from lakebed.api.auth import RateLimits
from lakebed.api.errors import Refusal
from lakebed.auth.keys import Key, Limits

KEY = Key(id="k", object="shop", scope="write", note="", created_us=0)
RATE, BURST_S = 10.0, 3.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 80)), max_size=30))
def test_the_average_holds(sent):
    """No more events are let in than were saved up and came since, and one batch; to wait as it is told helps."""
    clock = ManualClock()
    rates = RateLimits(clock, Limits(requests_per_s=1e9, events_per_s=RATE, burst_s=BURST_S))
    taken, most = 0, 0
    for pause, events in sent:
        clock.advance(pause)
        try:
            rates.admit(KEY, {"k"}, writes=True)
        except Refusal as refusal:
            clock.advance(float(refusal.headers["Retry-After"]))
            rates.admit(KEY, {"k"}, writes=True)
        rates.charge(KEY, events)
        taken, most = taken + events, max(most, events)
        assert taken <= RATE * (BURST_S + clock.monotonic()) + most + 1e-6


def test_buckets_of_keys_that_are_gone_are_dropped():
    """However many keys come and go, what is kept of them is bounded."""
    rates = RateLimits(ManualClock())
    for number in range(25_000):
        key = Key(id=str(number), object="shop", scope="write", note="", created_us=0)
        rates.admit(key, {key.id}, writes=True)
    assert len(rates._buckets) <= 1_010
