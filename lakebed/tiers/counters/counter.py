"""One counter of L0: the increments of one key, each until it ends."""

from __future__ import annotations

import math
from bisect import bisect_left

import msgspec

__all__ = ["FEW", "NEVER", "Counter", "Number"]

Number = int | float

NEVER = math.inf
_EXACT = 1024  # increments at distinct moments that a key holds before close ones are merged
FEW = 2 * _EXACT  # the length of `slots` while it is exact


class Counter(msgspec.Struct, gc=False):
    """One key: its live increments, by when they end. gc=False: a million of these must not slow the collector.

    While `slots` is None there is one slot: it ends at `last` and holds `total`. Most keys never need more.
    """

    total: Number
    last: float  # when the last increment ends: the key's death
    born: int
    # end, amount, end, amount …, ends ascending, NEVER for what does not expire. One flat list: the collector follows
    # lists, so a second one a key, or a tuple a slot, would show in the speed of incr.
    slots: list[Number] | None = None

    def add(self, amount: Number, end: float, now: float, ttl: float | None) -> Number:
        """Count one more increment; the new value. The counter must be alive at `now`."""
        if self.slots is None:
            if end == self.last:
                self.total += amount
                return self.total
            self.slots = [self.last, self.total]
        elif self.slots[0] <= now:
            self._forget(self.slots, now)
        self.total += amount
        if ttl is not None and len(self.slots) >= FEW:
            _place(self.slots, amount, _on_grid(end, ttl))
        else:
            _place(self.slots, amount, end)
        if end > self.last:  # noqa: PLR1730 - max() would be a quarter of this method's time
            self.last = end
        return self.total

    def value(self, now: float) -> Number:
        """The sum of what is alive at `now`. The counter must be alive itself."""
        if self.slots is not None and self.slots[0] <= now:
            self._forget(self.slots, now)
        return self.total

    def spread(self, now: float, ttl: float, parts: int) -> list[Number]:
        """The sums of what is alive at `now`, by when it ends: `parts` equal stretches of `ttl`, the soonest first."""
        found: list[Number] = [0] * parts
        slots = self.slots if self.slots is not None else [self.last, self.total]
        for at in range(0, len(slots), 2):
            left = slots[at] - now
            if left > 0:
                found[min(parts, math.ceil(left * parts / ttl)) - 1] += slots[at + 1]
        return found

    def _forget(self, slots: list[Number], now: float) -> None:
        """Drop the increments that have ended."""
        gone = 2
        while gone < len(slots) and slots[gone] <= now:
            gone += 2
        ended = sum(slots[1:gone:2])
        del slots[:gone]
        # Subtracting floats would leave the rounding of 1e16 + 1 behind after the 1e16 has gone.
        self.total = sum(slots[1::2]) if isinstance(self.total, float) else self.total - ended


def _place(slots: list[Number], amount: Number, end: float) -> None:
    """Add an increment to the slot that ends when it does, or make one."""
    if end > slots[-2]:
        slots += (end, amount)
        return
    at = len(slots) - 2
    if end < slots[at]:
        at = 2 * bisect_left(range(len(slots) // 2), end, key=lambda slot: slots[2 * slot])
    if slots[at] == end:
        slots[at + 1] += amount
    else:
        slots[at:at] = (end, amount)


def _on_grid(end: float, ttl: float) -> float:
    """`end`, put off by less than ttl / _EXACT. The grid is a power of two: those of different ttls share slots."""
    grid = math.ldexp(0.5, math.frexp(ttl / _EXACT)[1])
    return math.ceil(end / grid) * grid
