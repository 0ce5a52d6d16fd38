"""RateLimits: how much each key may send, as token buckets."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import msgspec

from lakebed.api.errors import Refusal
from lakebed.auth.keys import Key, Limits
from lakebed.clock import Clock

__all__ = ["DEFAULT_LIMITS", "RateLimits"]

# Far above what a busy site sends, and far below what one core stores: one runaway key leaves capacity for the others.
DEFAULT_LIMITS = Limits(requests_per_s=1_000, events_per_s=20_000, burst_s=5)

_Unit = Literal["requests", "events"]
_SLACK = 1_000  # buckets of deleted keys that may remain


class _Bucket(msgspec.Struct):
    level: float
    filled_at: float


class RateLimits:
    """The remaining capacity of each key.

    A bucket fills at its rate up to `burst_s` seconds' worth. A request is admitted while both buckets of its key are
    above zero. Its cost is taken when it is known, also below zero: then the key waits until the bucket is above zero
    again. So the average holds for any batch size, no batch is too large forever, and the excess is at most the
    requests that were under way at once.

    Args:
        clock: its monotonic time fills the buckets.
        defaults: for keys that have no limits of their own, with each field set.
    """

    def __init__(self, clock: Clock, defaults: Limits = DEFAULT_LIMITS) -> None:
        set_fields = {name: value for name, value in msgspec.structs.asdict(defaults).items() if value is not None}
        self._defaults = msgspec.structs.replace(DEFAULT_LIMITS, **set_fields)
        self._clock = clock
        self._buckets: dict[tuple[str, _Unit], _Bucket] = {}

    def admit(self, key: Key, live: Collection[str], *, writes: bool) -> None:
        """Count one request of `key`.

        Args:
            live: the ids of existing keys; buckets of other keys are dropped when there are many of them.
            writes: whether the request stores events. Then the bucket of events must be above zero, too.

        Raises:
            Refusal: 429, a bucket of the key is empty.
        """
        if len(self._buckets) > 2 * len(live) + _SLACK:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if name[0] in live}
        if writes:
            self._check(key, "events")
        self._check(key, "requests")
        self._bucket(key, "requests").level -= 1

    def charge(self, key: Key, events: int) -> None:
        """Take `events` from the bucket of `key`."""
        self._bucket(key, "events").level -= events

    def max_body_bytes(self, key: Key) -> int | None:
        """The largest body of `key` in bytes; None if only the server's own limit applies."""
        return key.limits.max_body_bytes or self._defaults.max_body_bytes

    def _check(self, key: Key, unit: _Unit) -> None:
        bucket, (rate, capacity) = self._bucket(key, unit), self._rate(key, unit)
        if bucket.level > 0:
            return
        # Wait for one whole unit, or for a full bucket: just above zero, the next request would be refused.
        wait_s = max(1, math.ceil((min(1.0, capacity) - bucket.level) / rate))
        raise Refusal(
            429,
            "RATE_LIMITED",
            f"This key may send {rate:g} {unit} a second, {capacity:g} at once. Send it again in {wait_s} s",
            limit=rate,
            headers={
                "Retry-After": str(wait_s),
                "X-RateLimit-Limit": f"{capacity:.0f}",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(wait_s),
            },
        )

    def _bucket(self, key: Key, unit: _Unit) -> _Bucket:
        """The bucket, filled up to now."""
        now, (rate, capacity) = self._clock.monotonic(), self._rate(key, unit)
        bucket = self._buckets.get((key.id, unit))
        if bucket is None:
            bucket = self._buckets[key.id, unit] = _Bucket(capacity, now)
        bucket.level = min(capacity, bucket.level + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket

    def _rate(self, key: Key, unit: _Unit) -> tuple[float, float]:
        own, general = key.limits, self._defaults
        rate = getattr(own, f"{unit}_per_s") or getattr(general, f"{unit}_per_s")
        return rate, rate * (own.burst_s or general.burst_s)
