"""L0: counters whose increments expire, in memory, with glob patterns over their keys."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Mapping
from numbers import Integral, Real

import msgspec

from lakebed.clock import Clock
from lakebed.tiers.counters.key_index import KeyIndex

__all__ = ["CounterStatistics", "Counters"]

Number = int | float

_NEVER = math.inf  # when an increment without ttl expires
_MAX_INTEGER = 1 << 63
_EXACT = 1024  # increments at distinct moments that a key holds before close ones are merged
_FULL = 2 * _EXACT  # with `slots` of this length or more, a counter is not exact
_STEPS = 2  # expired keys that one write removes: enough to keep up with new keys, and no write is slow
_UNINDEXED = 1024  # changed keys that may wait for the index: bounds the work of one call


class CounterStatistics(msgspec.Struct, frozen=True):
    """Sizes of the counters.

    Attributes:
        keys: live keys.
        max_keys: the limit of live keys.
        evicted: keys removed before their expiry, to keep the limit, since the counters were created.
        queued: entries in the expiry queue; at most twice the number of keys, plus a constant.
    """

    keys: int
    max_keys: int
    evicted: int
    queued: int


class Counters:
    """Counters by key. With `ttl`, every increment lives exactly `ttl` seconds after it was made.

    So `incr("pageviews_1m", ttl=60)` counts a true sliding minute, and `count("active:*")` counts the keys that had an
    increment within their ttl. An increment made at `t` counts at times before `t + ttl`, on the monotonic clock: the
    wall clock may jump. An increment without ttl never expires. A key is alive while one of its increments is alive.

    Exactness: every answer is exact while a key holds at most 1,024 live increments made at distinct clock readings.
    Further increments are exact in sum, but each may count longer than its ttl, by less than ttl / 1,024 (60 s: 59 ms);
    never shorter. The expiry of a key and the result of `ttl` are always exact. A key holds at most 1,024 slots, and
    2,049 more for each power of two among its ttls.

    Sums of integers are exact. Sums of floats round as in Python; an expired float leaves no rounding error behind.

    Bound: a new key beyond `max_keys` removes expired keys, else evicts the key that would expire first (of several,
    the oldest); keys that never expire are evicted last. `evicted` counts the evicted keys.

    Not promised: safety across threads (call from the loop's thread), and survival of a restart: the object then
    rebuilds the counters that `track` feeds from the log; other counters are lost.

    Args:
        clock: the source of monotonic time, which each call reads once.
        max_keys: the limit of live keys.
    """

    def __init__(self, clock: Clock, max_keys: int) -> None:
        if max_keys <= 0:
            raise ValueError(f"max_keys is {max_keys}: it must be at least 1")
        self._monotonic = clock.monotonic
        self._max_keys = max_keys
        self._created = 0
        self.evicted = 0
        self.clear()

    def clear(self) -> None:
        """Remove all keys. `evicted` keeps its value."""
        self._counters: dict[str, _Counter] = {}
        # One entry for each live key: (time not after its expiry, creation number, key). Only the front is corrected,
        # so an increment on a live key changes no entry. The sentinel spares increments a test for emptiness.
        self._queue: list[tuple[float, float, str]] = [(_NEVER, _NEVER, "")]
        # The index is as of the last glob, or the last _UNINDEXED changes; _added and _removed are the difference.
        self._index = KeyIndex()
        self._added: set[str] = set()
        self._removed: set[str] = set()

    def incr(self, key: str, amount: Number = 1, ttl: float | None = None, *, age: float = 0.0) -> Number:
        """Add `amount` (any finite number, also a negative one) to `key`; returns the new value.

        Args:
            key: any text but the empty one.
            amount: integers from -2**63 to 2**63, or floats.
            ttl: the seconds for which this increment counts; None means for ever.
            age: the seconds since the increment was made, to rebuild from a log. An expired increment does nothing.

        Raises:
            ValueError: the key is empty, the amount not finite, `ttl` not above 0, or `age` negative. Nothing counts.
            TypeError: the key is not text, or the amount is not a number.
        """
        if type(amount) is not int or not -_MAX_INTEGER <= amount <= _MAX_INTEGER:
            amount = _checked_amount(key, amount)
        now = self._monotonic()
        if self._queue[0][0] <= now:
            self._sweep(now, _STEPS)
        if ttl is None:
            end = _NEVER
        elif 0 < ttl < _NEVER:
            end = (now - _checked_age(key, age) if age else now) + ttl
        else:
            raise ValueError(f"counter {key!r}: ttl is {ttl}; give finite seconds above 0, or None for ever")
        counter = self._counters.get(key)
        if counter is not None and counter.expires > now:
            return counter.add(amount, end, now, ttl) if end > now else counter.value(now)
        return self._create(key, amount, end, now)

    def incr_each(self, prefix: str, amounts: Mapping[str, int], ttl: float | None, *, age: float = 0.0) -> None:
        """Like `incr` for each `prefix` + key with its amount, all at one moment, at a third of the cost.

        Not promised: any check. Keys, amounts, ttl and age must be valid arguments of `incr`.
        """
        now = self._monotonic()
        if self._queue[0][0] <= now:
            self._sweep(now, _STEPS * len(amounts))
        end = _NEVER if ttl is None else now - age + ttl
        if end <= now:
            return
        for name, amount in amounts.items():
            key = prefix + name
            counter = self._counters.get(key)
            if counter is None or counter.expires <= now:
                self._insert(key, amount, end, now)
            elif (slots := counter.slots) is not None and slots[-2] < end and slots[0] > now and len(slots) < _FULL:
                # What `add` does in nearly every case: one more slot at the end. A call would double the price.
                slots += (end, amount)
                counter.total += amount
                counter.expires = end
            else:
                counter.add(amount, end, now, ttl)

    def get(self, key: str) -> Number:
        """The sum of the live increments of `key`; 0 if there are none."""
        now = self._now()
        counter = self._counters.get(key)
        return counter.value(now) if counter is not None and counter.expires > now else 0

    def ttl(self, key: str) -> float | None:
        """Seconds until the last increment of `key` expires; None if it never expires or there is no such key."""
        now = self._now()
        counter = self._counters.get(key)
        return counter.expires - now if counter is not None and now < counter.expires < _NEVER else None

    def count(self, glob: str) -> int:
        """The number of live keys that match `glob` (`*`, `?`, `[a-z]`, `[!a-z]`; case matters).

        A prefix and `*` costs O(log n). For any other glob, all keys with the glob's literal prefix are examined.
        """
        self._refresh()
        return self._index.count(glob)

    def keys(self, glob: str = "*") -> list[str]:
        """The live keys that match `glob`, in order of code points."""
        self._refresh()
        return list(self._index.matches(glob))

    def top(self, glob: str, n: int) -> list[tuple[str, Number]]:
        """The `n` largest values of keys that match `glob`, as (key, value), descending; equal values by key."""
        if n < 0:
            raise ValueError(f"top {n} of {glob!r}: n cannot be negative")
        now = self._refresh()
        values = ((-self._counters[key].value(now), key) for key in self._index.matches(glob))
        return [(key, -value) for value, key in heapq.nsmallest(n, values)]

    def spread(self, key: str, ttl: float, parts: int) -> list[Number]:
        """The live increments of `key`, each made with this `ttl`, as a histogram over time.

        Returns sums over `parts` equal stretches of the last `ttl` seconds, oldest first; their total is `get(key)`.
        With more than 1,024 live increments, an increment may count in the stretch after its own: see the class.
        """
        now = self._now()
        counter = self._counters.get(key)
        return counter.spread(now, ttl, parts) if counter is not None and counter.expires > now else [0] * parts

    def delete(self, key: str) -> bool:
        """Remove `key`; returns whether it was alive."""
        now = self._now()
        counter = self._counters.get(key)
        if counter is None:
            return False
        self._remove(key)
        if len(self._queue) > 2 * len(self._counters) + _UNINDEXED:
            self._rebuild_queue()
        return counter.expires > now

    def __len__(self) -> int:
        """The number of live keys."""
        self._expire(self._monotonic())
        return len(self._counters)

    def __contains__(self, key: object) -> bool:
        """Whether `key` is alive."""
        counter = self._counters.get(key) if isinstance(key, str) else None
        return counter is not None and counter.expires > self._now()

    def statistics(self) -> CounterStatistics:
        """Sizes and limits, for `check()` and dashboards."""
        return CounterStatistics(len(self), self._max_keys, self.evicted, len(self._queue) - 1)

    # Keys: insertion and removal.

    def _now(self) -> float:
        """Read the clock, and remove a few expired keys, as every call does. Returns the time."""
        now = self._monotonic()
        if self._queue[0][0] <= now:
            self._sweep(now, _STEPS)
        return now

    def _create(self, key: str, amount: Number, end: float, now: float) -> Number:
        if not isinstance(key, str):
            raise TypeError(f"counter {key!r}: keys are text, not {type(key).__name__}")
        if not key:
            raise ValueError("counter '': a key cannot be empty")
        if end > now:
            self._insert(key, amount, end, now)
            return amount
        return 0

    def _insert(self, key: str, amount: Number, end: float, now: float) -> None:
        counters = self._counters
        if key in counters:
            self._remove(key)
        elif len(counters) >= self._max_keys:
            self._evict(now)
        self._created = created = self._created + 1
        counters[key] = _Counter(amount, end, created)
        heapq.heappush(self._queue, (end, created, key))
        if key in self._removed:
            self._removed.remove(key)
        else:
            self._added.add(key)
            if len(self._added) >= _UNINDEXED:
                self._update_index()

    def _remove(self, key: str) -> None:
        """Remove a key. The key's entry in the queue is skipped later."""
        del self._counters[key]
        if key in self._added:
            self._added.remove(key)
        else:
            self._removed.add(key)

    def _evict(self, now: float) -> None:
        self._expire(now)
        while len(self._counters) >= self._max_keys:
            # The key that expires first is found at the front, once that entry's time is the key's true expiry.
            self.evicted += self._advance_queue(self._queue[0][0])

    # Expiry.

    def _sweep(self, now: float, steps: int) -> None:
        queue = self._queue
        while steps and queue[0][0] <= now:
            steps -= 1
            self._advance_queue(now)
        if len(self._removed) >= _UNINDEXED:
            self._update_index()

    def _advance_queue(self, now: float) -> bool:
        """Correct the front entry of the queue, or remove its key if expired at `now`. Returns True if removed."""
        _, created, key = self._queue[0]
        counter = self._counters.get(key)
        if counter is not None and counter.created == created and counter.expires > now:
            heapq.heapreplace(self._queue, (counter.expires, created, key))
            return False
        heapq.heappop(self._queue)
        if counter is None or counter.created != created:
            return False
        self._remove(key)
        return True

    def _expire(self, now: float) -> None:
        """Remove all keys that are expired at `now`: few keys one by one, many keys in one pass."""
        if self._queue[0][0] > now:
            return
        self._sweep(now, _UNINDEXED + len(self._queue) // 64)
        if self._queue[0][0] <= now:
            self._counters = {key: counter for key, counter in self._counters.items() if counter.expires > now}
            self._added &= self._counters.keys()
            self._rebuild_queue()
            self._index.retain(self._counters)
            self._removed = set()

    def _rebuild_queue(self) -> None:
        self._queue = [(counter.expires, counter.created, key) for key, counter in self._counters.items()]
        self._queue.append((_NEVER, _NEVER, ""))
        heapq.heapify(self._queue)

    def _refresh(self) -> float:
        """Bring the index up to the present, and return the present time."""
        now = self._monotonic()
        self._expire(now)
        if self._added or self._removed:
            self._update_index()
        return now

    def _update_index(self) -> None:
        self._index.update(self._added, self._removed)
        self._removed, self._added = set(), set()


class _Counter(msgspec.Struct, gc=False):
    """The live increments of one key, by expiry. gc=False: a million counters must not slow the collector.

    While `slots` is None there is one slot, which expires at `expires` and holds `total`. Most keys never need more.
    """

    total: Number
    expires: float  # the expiry of the last increment, and so of the key
    created: int  # the number of the key's creation
    # end, amount, end, amount …, ends ascending, _NEVER without ttl. One flat list: the collector follows lists, so a
    # second list for each key, or a tuple for each slot, would show in the speed of incr.
    slots: list[Number] | None = None

    def add(self, amount: Number, end: float, now: float, ttl: float | None) -> Number:
        """Add an increment and return the new value. The counter must be alive at `now`."""
        if self.slots is None:
            if end == self.expires:
                self.total += amount
                return self.total
            self.slots = [self.expires, self.total]
        elif self.slots[0] <= now:
            self._drop_expired(self.slots, now)
        self.total += amount
        if ttl is not None and len(self.slots) >= _FULL:
            _place(self.slots, amount, _on_grid(end, ttl))
        else:
            _place(self.slots, amount, end)
        if end > self.expires:  # noqa: PLR1730 - max() would be a quarter of this method's time
            self.expires = end
        return self.total

    def value(self, now: float) -> Number:
        """The sum of the increments alive at `now`. The counter must be alive at `now`."""
        if self.slots is not None and self.slots[0] <= now:
            self._drop_expired(self.slots, now)
        return self.total

    def spread(self, now: float, ttl: float, parts: int) -> list[Number]:
        """Sums of the increments alive at `now` over `parts` equal stretches of `ttl`, the soonest expiry first."""
        sums: list[Number] = [0] * parts
        slots = self.slots if self.slots is not None else [self.expires, self.total]
        for end, amount in zip(slots[::2], slots[1::2], strict=True):
            if end > now:
                sums[min(parts, math.ceil((end - now) * parts / ttl)) - 1] += amount
        return sums

    def _drop_expired(self, slots: list[Number], now: float) -> None:
        length = 2
        while length < len(slots) and slots[length] <= now:
            length += 2
        expired = sum(slots[1:length:2])
        del slots[:length]
        # Subtracting floats would keep the rounding error of 1e16 + 1 after the 1e16 has expired.
        self.total = sum(slots[1::2]) if isinstance(self.total, float) else self.total - expired


def _place(slots: list[Number], amount: Number, end: float) -> None:
    """Add `amount` to the slot that expires at `end`, or insert such a slot."""
    if end > slots[-2]:
        slots += (end, amount)
        return
    index = len(slots) - 2
    if end < slots[index]:
        index = 2 * bisect_left(range(len(slots) // 2), end, key=lambda slot: slots[2 * slot])
    if slots[index] == end:
        slots[index + 1] += amount
    else:
        slots[index:index] = (end, amount)


def _on_grid(end: float, ttl: float) -> float:
    """`end` rounded up, by less than ttl / _EXACT. The grid is a power of two, so that different ttls share slots."""
    grid = math.ldexp(0.5, math.frexp(ttl / _EXACT)[1])
    return math.ceil(end / grid) * grid


def _checked_amount(key: str, amount: object) -> Number:
    if not isinstance(amount, Real):
        raise TypeError(f"counter {key!r}: amount {amount!r} is not a number")
    if not -_MAX_INTEGER <= int(amount) <= _MAX_INTEGER if isinstance(amount, Integral) else not math.isfinite(amount):
        raise ValueError(f"counter {key!r}: amount is {amount}; give a finite float, or an integer within ±2**63")
    return int(amount) if isinstance(amount, Integral) else float(amount)


def _checked_age(key: str, age: float) -> float:
    if 0 <= age < _NEVER:
        return age
    raise ValueError(f"counter {key!r}: age is {age}; give finite seconds, 0 or more")
