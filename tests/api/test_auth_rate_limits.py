"""Rate limits: whatever a key sends and when, the admitted requests stay within its limits."""

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
def test_admitted_events_stay_within_the_average_rate(sent):
    """At most a full bucket, the refill since and one batch are admitted; after Retry-After a request is admitted."""
    clock = ManualClock()
    rates = RateLimits(clock, Limits(requests_per_s=1e9, events_per_s=RATE, burst_s=BURST_S))
    admitted, largest = 0, 0
    for pause, events in sent:
        clock.advance(pause)
        try:
            rates.admit(KEY, {"k"}, writes=True)
        except Refusal as refusal:
            clock.advance(float(refusal.headers["Retry-After"]))
            rates.admit(KEY, {"k"}, writes=True)
        rates.charge(KEY, events)
        admitted, largest = admitted + events, max(largest, events)
        assert admitted <= RATE * (BURST_S + clock.monotonic()) + largest + 1e-6


def test_buckets_of_deleted_keys_are_dropped():
    """The number of buckets is bounded, however many keys are created and deleted."""
    rates = RateLimits(ManualClock())
    for number in range(25_000):
        key = Key(id=str(number), object="shop", scope="write", note="", created_us=0)
        rates.admit(key, {key.id}, writes=True)
    assert len(rates._buckets) <= 1_010
