"""Histogram: counts of values by size. Counting one value costs a fraction of a microsecond."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["COUNTS", "SECONDS", "Histogram"]

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COUNTS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


class Histogram:
    """Counts of values by size. One thread observes; other threads may read, and may miss the newest value.

    Args:
        bounds: upper bounds, ascending, each inclusive; values above the last bound are counted too.

    Attributes:
        counts: the number of values in each bucket, not cumulative. There is one more bucket than bounds.
        total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Add the counts of `other`, which has the same bounds."""
        self.counts = [left + right for left, right in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> list[tuple[str, int]]:
        """Each bound as text, and at last "+Inf", with the number of values up to this bound."""
        bounds = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(bounds, itertools.accumulate(self.counts), strict=True))
