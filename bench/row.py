"""A row of the table: one kind of work, who did it how fast, and what was asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.goal import FLOOR, Goal
from bench.measure import Failed, Found

Verdict = Literal["met", "missed", "failed", ""]


class Row(msgspec.Struct, frozen=True):
    """One kind of work.

    Attributes:
        unit: of every figure in it; a ratio is Lakebed's figure divided by the other.
        peers: figures by name; the name says how the peer was used and how durable it was.
        floor_is: what the floor does.
    """

    subject: str
    work: str
    unit: str
    lakebed: Found
    peers: dict[str, Found] = {}
    floor: Found | None = None
    floor_is: str = ""
    goals: Sequence[Goal] = ()

    def others(self) -> dict[str, Found]:
        """Everybody it is compared with."""
        return self.peers | ({FLOOR: self.floor} if self.floor is not None else {})

    def verdict(self, goal: Goal) -> Verdict:
        """Whether a goal is met."""
        met = goal.holds(self.lakebed, self.others())
        return "failed" if met is None else "met" if met else "missed"

    @property
    def failures(self) -> list[str]:
        """The figures that could not be measured, except those of programs that this machine lacks."""
        results = {"Lakebed": self.lakebed, **self.others()}
        return [f"{self.work}: {name}: {result.reason}" for name, result in results.items() if _broken(result)]


def _broken(result: Found) -> bool:
    return isinstance(result, Failed) and not result.absent
