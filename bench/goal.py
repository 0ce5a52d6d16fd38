"""A goal: data, and whether a row meets it."""

from __future__ import annotations

import msgspec

from bench.measure import Failed, Found, Samples

OURS = "figure"  # the goal is about the figure itself
FLOOR = "floor"  # … or about its ratio to the floor, or to the peer of that name


class Goal(msgspec.Struct, frozen=True):
    """What a figure must reach. `design` is the row of the design that it stands for, "" for none.

    Attributes:
        text: as the table shows it.
        of: `OURS`, `FLOOR`, or the name of a peer.
        least, most: the bound.
        plus: allowed beside a ratio, in the row's unit.
    """

    text: str
    design: str = ""
    of: str = OURS
    least: float | None = None
    most: float | None = None
    plus: float = 0.0

    def holds(self, result: Found, others: dict[str, Found]) -> bool | None:
        """Whether the goal is met; None if one of its figures was not measured."""
        if isinstance(result, Failed):
            return None
        value: float | None = result.median
        if self.of != OURS:
            value = _ratio(result, others.get(self.of), self.plus)
        if value is None:
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def _ratio(result: Samples, other: Found | None, plus: float) -> float | None:
    if not isinstance(other, Samples):
        return None
    return Samples(tuple(value - plus for value in result.values)).over(other)
