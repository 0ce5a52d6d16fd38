"""L0: counters whose increments expire, in memory, with glob patterns over their keys."""

from __future__ import annotations

import fnmatch
import heapq
import math
import re
from collections.abc import Iterator, Mapping
from numbers import Integral, Real

import msgspec
from sortedcontainers import SortedList

from lakebed.clock import Clock
from lakebed.tiers.counters.counter import FEW, NEVER, Counter, Number

__all__ = ["CounterStatistics", "Counters"]

_MOST = 1 << 63
_STEPS = 2  # expired keys that one write removes: as many leave as can come, and no write is slow
_UNINDEXED = 1024  # keys that may wait for their place in the sorted index: bounds what one call has to do
_REBUILD = 16  # an index up to so many times as long as what comes to it is sorted anew
_MAX_RUNE = chr(0x10FFFF)
_WILD = re.compile(r"[*?[]")


class CounterStatistics(msgspec.Struct, frozen=True):
    """What `Counters.statistics` saw.

    Attributes:
        keys: keys alive.
        max_keys: the bound on them.
        evicted: keys that had to go before their time since the counters were made.
        queued: entries in the expiry queue; at most twice the keys and a constant.
    """

    keys: int
    max_keys: int
    evicted: int
    queued: int


class Counters:
    """Counters by key. With `ttl`, every increment lives exactly `ttl` seconds after it was made.

    So `incr("pageviews_1m", ttl=60)` counts a true sliding minute, and `count("active:*")` counts the keys that had an
    increment within their ttl. An increment made at `t` counts at times before `t + ttl`, on the monotonic clock: the
    machine's wall clock may jump. One without ttl never expires. A key is alive while any increment of it is.

    Exactness: every answer is exact while a key holds at most 1,024 live increments made at distinct clock readings.
    Further ones are exact in sum, but each may count longer than its ttl, by less than ttl / 1,024 (60 s: 59 ms); never
    shorter. When a key dies, and what `ttl` says, is always exact. A key holds at most 1,024 slots and 2,049 more for
    each power of two among its ttls.

    Sums of integers are exact; sums of floats round as Python's do, and nothing of an expired float remains.

    Bound: a new key beyond `max_keys` removes expired keys, else evicts the key that would die first; keys that never
    expire go last; of equals the oldest goes. `evicted` counts them.

    Not promised: safety across threads (call from the loop's thread), and survival: the object rebuilds from the log
    what `track` feeds, what you count yourself is gone after a restart.

    Args:
        clock: its monotonic time; read once for each call.
        max_keys: keys at the most.
    """

    def __init__(self, clock: Clock, max_keys: int) -> None:
        if max_keys <= 0:
            raise ValueError(f"max_keys is {max_keys}: give room for at least one key")
        self._monotonic = clock.monotonic
        self._max_keys = max_keys
        self._born = 0
        self.evicted = 0
        self.clear()

    def clear(self) -> None:
        """Forget all keys. `evicted` stays."""
        self._counters: dict[str, Counter] = {}
        # One entry a live key: (not later than its death, birth, key). It is put right when it comes to the front, so
        # an increment on a live key does not touch it. The sentinel spares a test for emptiness in every increment.
        self._queue: list[tuple[float, float, str]] = [(NEVER, NEVER, "")]
        # The keys in order, as of the last glob or the last _UNINDEXED changes; these two make up for the difference.
        self._index = SortedList()
        self._added: set[str] = set()
        self._removed: set[str] = set()

    def incr(self, key: str, amount: Number = 1, ttl: float | None = None, *, age: float = 0.0) -> Number:
        """Add `amount` (any finite number, negative too) to `key`; the new value.

        Args:
            key: any text but the empty one.
            amount: integers from -2**63 to 2**63, or floats.
            ttl: seconds that this increment counts; None means for ever.
            age: seconds ago that it was made, to rebuild from a log. One that has already expired does nothing.

        Raises:
            ValueError: for an empty key, an amount that is not finite, a ttl not above 0, a negative age. Nothing is
                counted then.
            TypeError: for a key that is no text, or an amount that is no number.
        """
        if type(amount) is not int or not -_MOST <= amount <= _MOST:
            amount = _amount(key, amount)
        now = self._monotonic()
        if self._queue[0][0] <= now:
            self._sweep(now, _STEPS)
        if ttl is None:
            end = NEVER
        elif 0 < ttl < NEVER:
            end = (now - _age(key, age) if age else now) + ttl
        else:
            raise ValueError(f"counter {key!r}: ttl is {ttl}; give finite seconds above 0, or None for ever")
        counter = self._counters.get(key)
        if counter is not None and counter.last > now:
            return counter.add(amount, end, now, ttl) if end > now else counter.value(now)
        return self._create(key, amount, end, now)

    def incr_each(self, prefix: str, amounts: Mapping[str, int], ttl: float | None, *, age: float = 0.0) -> None:
        """`incr` each `prefix` + key by its amount, all at one moment, at a third of the price.

        Not promised: any check. Keys, amounts, ttl and age must be what `incr` takes.
        """
        now = self._monotonic()
        if self._queue[0][0] <= now:
            self._sweep(now, _STEPS * len(amounts))
        end = NEVER if ttl is None else now - age + ttl
        if end <= now:
            return
        for name, amount in amounts.items():
            key = prefix + name
            counter = self._counters.get(key)
            if counter is None or counter.last <= now:
                self._bear(key, amount, end, now)
            elif (slots := counter.slots) is not None and slots[-2] < end and slots[0] > now and len(slots) < FEW:
                # What `add` does in nearly every case: one more slot at the end. A call would double the price.
                slots += (end, amount)
                counter.total += amount
                counter.last = end
            else:
                counter.add(amount, end, now, ttl)

    def get(self, key: str) -> Number:
        """The sum of the live increments of `key`; 0 when there are none."""
        now = self._now()
        counter = self._counters.get(key)
        return counter.value(now) if counter is not None and counter.last > now else 0

    def ttl(self, key: str) -> float | None:
        """Seconds until the last increment of `key` expires; None when it never does, or when there is no such key."""
        now = self._now()
        counter = self._counters.get(key)
        return counter.last - now if counter is not None and now < counter.last < NEVER else None

    def count(self, glob: str) -> int:
        """How many keys alive match `glob` (`*`, `?`, `[a-z]`, `[!a-z]`; case matters).

        A prefix and `*` costs O(log n). Other globs look at the keys that share their literal prefix.
        """
        self._refresh()
        prefix, rest = _split(glob)
        if not rest or rest.strip("*"):
            return sum(1 for _ in self._matches(glob))
        after = _successor(prefix)
        end = self._index.bisect_left(after) if after else len(self._index)
        return int(end - self._index.bisect_left(prefix))

    def keys(self, glob: str = "*") -> list[str]:
        """The keys alive that match `glob`, in order of code points."""
        self._refresh()
        return list(self._matches(glob))

    def top(self, glob: str, n: int) -> list[tuple[str, Number]]:
        """The `n` largest values among the keys that match `glob`, as (key, value), descending; equals by key."""
        if n < 0:
            raise ValueError(f"top {n} of {glob!r}: n cannot be negative")
        now = self._refresh()
        values = ((-self._counters[key].value(now), key) for key in self._matches(glob))
        return [(key, -value) for value, key in heapq.nsmallest(n, values)]

    def spread(self, key: str, ttl: float, parts: int) -> list[Number]:
        """How the live increments of `key`, each made with this `ttl`, lie in time.

        Sums over `parts` equal stretches of the last `ttl` seconds, oldest first; together they are `get(key)`. Of a
        key with more than 1,024 live increments an event may count in the stretch after its own, as `incr` tells.
        """
        now = self._now()
        counter = self._counters.get(key)
        return counter.spread(now, ttl, parts) if counter is not None and counter.last > now else [0] * parts

    def delete(self, key: str) -> bool:
        """Forget `key`; whether it was alive."""
        now = self._now()
        counter = self._counters.get(key)
        if counter is None:
            return False
        self._remove(key)
        if len(self._queue) > 2 * len(self._counters) + _UNINDEXED:
            self._requeue()
        return counter.last > now

    def __len__(self) -> int:
        """Keys alive."""
        self._expire(self._monotonic())
        return len(self._counters)

    def __contains__(self, key: object) -> bool:
        """Whether `key` is alive."""
        counter = self._counters.get(key) if isinstance(key, str) else None
        return counter is not None and counter.last > self._now()

    def statistics(self) -> CounterStatistics:
        """Sizes and bounds, for `check()` and dashboards."""
        return CounterStatistics(len(self), self._max_keys, self.evicted, len(self._queue) - 1)

    # Keys: how they come and go.

    def _now(self) -> float:
        """Read the clock, and remove a few expired keys as every call does."""
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
            self._bear(key, amount, end, now)
            return amount
        return 0

    def _bear(self, key: str, amount: Number, end: float, now: float) -> None:
        counters = self._counters
        if key in counters:
            self._remove(key)
        elif len(counters) >= self._max_keys:
            self._make_room(now)
        self._born = born = self._born + 1
        counters[key] = Counter(amount, end, born)
        heapq.heappush(self._queue, (end, born, key))
        if key in self._removed:
            self._removed.remove(key)
        else:
            self._added.add(key)
            if len(self._added) >= _UNINDEXED:
                self._reindex()

    def _remove(self, key: str) -> None:
        """Drop a key; its entry in the queue is passed over when its turn comes."""
        del self._counters[key]
        if key in self._added:
            self._added.remove(key)
        else:
            self._removed.add(key)

    def _make_room(self, now: float) -> None:
        self._expire(now)
        while len(self._counters) >= self._max_keys:
            # What would die at the front's own moment is what dies first.
            self.evicted += self._step(self._queue[0][0])

    # Expiry.

    def _sweep(self, now: float, steps: int) -> None:
        queue = self._queue
        while steps and queue[0][0] <= now:
            steps -= 1
            self._step(now)
        if len(self._removed) >= _UNINDEXED:
            self._reindex()

    def _step(self, now: float) -> bool:
        """Put the front of the queue right, or remove its key when it is dead at `now`; whether a key went."""
        _, born, key = self._queue[0]
        counter = self._counters.get(key)
        if counter is not None and counter.born == born and counter.last > now:
            heapq.heapreplace(self._queue, (counter.last, born, key))
            return False
        heapq.heappop(self._queue)
        if counter is None or counter.born != born:
            return False
        self._remove(key)
        return True

    def _expire(self, now: float) -> None:
        """Remove all keys that are dead at `now`: one by one while they are few, in one pass when they are many."""
        if self._queue[0][0] > now:
            return
        self._sweep(now, _UNINDEXED + len(self._queue) // 64)
        if self._queue[0][0] <= now:
            self._counters = {key: counter for key, counter in self._counters.items() if counter.last > now}
            self._added &= self._counters.keys()
            self._requeue()
            self._sift()

    def _requeue(self) -> None:
        self._queue = [(counter.last, counter.born, key) for key, counter in self._counters.items()]
        self._queue.append((NEVER, NEVER, ""))
        heapq.heapify(self._queue)

    # Globs.

    def _refresh(self) -> float:
        """Bring the index to this moment, and return it."""
        now = self._monotonic()
        self._expire(now)
        if self._added or self._removed:
            self._reindex()
        return now

    def _reindex(self) -> None:
        if len(self._removed) * 16 > len(self._index):
            self._sift()
        for key in self._removed:
            self._index.remove(key)
        if len(self._index) <= _REBUILD * len(self._added):
            # Python's sort finds the sorted run: half the price of placing them one by one.
            self._index = SortedList(sorted([*self._index, *sorted(self._added)]))
        else:
            self._index.update(self._added)
        self._removed, self._added = set(), set()

    def _sift(self) -> None:
        """Take all that is gone out of the index, in one pass."""
        self._index = SortedList(filter(self._counters.__contains__, self._index))
        self._removed = set()

    def _matches(self, glob: str) -> Iterator[str]:
        prefix, rest = _split(glob)
        if not rest:
            return iter([prefix] if prefix in self._counters else [])
        keys: Iterator[str] = self._index.irange(prefix, _successor(prefix) or None, inclusive=(True, False))
        return filter(re.compile(fnmatch.translate(glob)).match, keys) if rest.strip("*") else keys


def _split(glob: str) -> tuple[str, str]:
    """The literal prefix of a glob, and the rest, which starts with a wildcard or is empty."""
    wild = _WILD.search(glob)
    return (glob[: wild.start()], glob[wild.start() :]) if wild else (glob, "")


def _successor(prefix: str) -> str:
    """The least text that is greater than every text with this prefix; empty when there is none."""
    prefix = prefix.rstrip(_MAX_RUNE)
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""


def _amount(key: str, amount: object) -> Number:
    if not isinstance(amount, Real):
        raise TypeError(f"counter {key!r}: amount {amount!r} is no number")
    if not -_MOST <= int(amount) <= _MOST if isinstance(amount, Integral) else not math.isfinite(amount):
        raise ValueError(f"counter {key!r}: amount is {amount}; give a finite float, or an integer within ±2**63")
    return int(amount) if isinstance(amount, Integral) else float(amount)


def _age(key: str, age: float) -> float:
    if 0 <= age < NEVER:
        return age
    raise ValueError(f"counter {key!r}: age is {age}; give finite seconds, 0 or more")
