"""Rates: how much each key may send, as token buckets."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import msgspec

from lakebed.api.errors import Refusal
from lakebed.auth.keys import Key, Limits
from lakebed.clock import Clock

__all__ = ["DEFAULT_LIMITS", "RateLimits"]

# Far above what a busy site sends, and far below what one core stores: one key that runs wild leaves room for others.
DEFAULT_LIMITS = Limits(requests_per_s=1_000, events_per_s=20_000, burst_s=5)

_What = Literal["requests", "events"]
_SLACK = 1_000  # buckets that may be of keys which are gone


class _Bucket(msgspec.Struct):
    level: float
    filled_at: float


class RateLimits:
    """What each key has left.

    A bucket fills by its rate up to `burst_s` seconds' worth. A request is let in while there is anything in both
    buckets of its key. What it takes is taken when that is known, also below zero: then the key waits until there is
    something again. So the average holds whatever is sent, no batch is too large for ever, and what goes over is at
    most what was under way at once.

    Args:
        clock: its monotonic time fills the buckets.
        defaults: for keys that have no limits of their own, each of its fields set.
    """

    def __init__(self, clock: Clock, defaults: Limits = DEFAULT_LIMITS) -> None:
        given = {name: value for name, value in msgspec.structs.asdict(defaults).items() if value is not None}
        self._defaults = msgspec.structs.replace(DEFAULT_LIMITS, **given)
        self._clock = clock
        self._buckets: dict[tuple[str, _What], _Bucket] = {}

    def admit(self, key: Key, live: Collection[str], *, writes: bool) -> None:
        """Count one request of `key`.

        Args:
            live: the keys that count now: buckets of others are dropped when there are many of them.
            writes: whether it stores events: then it needs some left.

        Raises:
            Refusal: 429, one of its buckets is empty.
        """
        if len(self._buckets) > 2 * len(live) + _SLACK:
            self._buckets = {of: bucket for of, bucket in self._buckets.items() if of[0] in live}
        if writes:
            self._check(key, "events")
        self._check(key, "requests")
        self._bucket(key, "requests").level -= 1

    def charge(self, key: Key, events: int) -> None:
        """Take `events` from what `key` has left."""
        self._bucket(key, "events").level -= events

    def max_body_bytes(self, key: Key) -> int | None:
        """How large a body of `key` may be, where that is less than what the server takes anyhow."""
        return key.limits.max_body_bytes or self._defaults.max_body_bytes

    def _check(self, key: Key, what: _What) -> None:
        bucket, (rate, capacity) = self._bucket(key, what), self._rate(key, what)
        if bucket.level > 0:
            return
        # One whole unit, or all that ever fits: just above zero, the next request would be refused.
        wait_s = max(1, math.ceil((min(1.0, capacity) - bucket.level) / rate))
        raise Refusal(
            429,
            "RATE_LIMITED",
            f"This key may send {rate:g} {what} a second, {capacity:g} at once. Send it again in {wait_s} s",
            limit=rate,
            headers={
                "Retry-After": str(wait_s),
                "X-RateLimit-Limit": f"{capacity:.0f}",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(wait_s),
            },
        )

    def _bucket(self, key: Key, what: _What) -> _Bucket:
        """The bucket as it is now."""
        now, (rate, capacity) = self._clock.monotonic(), self._rate(key, what)
        bucket = self._buckets.get((key.id, what))
        if bucket is None:
            bucket = self._buckets[key.id, what] = _Bucket(capacity, now)
        bucket.level = min(capacity, bucket.level + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket

    def _rate(self, key: Key, what: _What) -> tuple[float, float]:
        own, general = key.limits, self._defaults
        rate = getattr(own, f"{what}_per_s") or getattr(general, f"{what}_per_s")
        return rate, rate * (own.burst_s or general.burst_s)
