"""Exclusion: events that must not lie between two steps of a funnel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from lakebed.errors import QueryRefused
from lakebed.reports.event_filter import EventFilter, EventLike

__all__ = ["FunnelExclusion"]


class FunnelExclusion(msgspec.Struct, frozen=True):
    """Events that must not lie between two steps, which count from 1."""

    events: EventFilter
    first: int
    last: int

    @classmethod
    def of(cls, value: EventLike, steps: int) -> Self:
        """`"A"`, or `{"event": "A", "where": "…", "between": [1, 3]}`; without `between`, the first and the last.

        Raises:
            QueryRefused: it is none of these.
        """
        between: Any = None
        if isinstance(value, Mapping) and "between" in value:
            between = value["between"]
            value = {key: one for key, one in value.items() if key != "between"}
        found = EventFilter.of(value, "exclude")
        first, last = (1, steps) if between is None else _pair(between)
        if not 1 <= first < last <= steps:
            hint = f"Give the numbers of two steps, such as [1, {max(steps, 2)}]"
            raise QueryRefused(f"exclude: between is {str(between)[:40]!r} of {steps} steps", hint=hint)
        return cls(found, first, last)


def _pair(value: Any) -> tuple[int, int]:
    """The two numbers of `between`; zeros, which are no steps, where it has none."""
    match value:
        case [int(first), int(last)]:
            return first, last
    return 0, 0
