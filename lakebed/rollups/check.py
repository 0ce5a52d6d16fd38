"""Checks that rollups count exactly the events of the log."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from lakebed.events.documents import DocumentPositions
from lakebed.rollups.rollup import DAILY_METRICS, HOURLY_EVENTS

__all__ = ["EVENT_COUNTS", "count_problems"]

EVENT_COUNTS = {HOURLY_EVENTS.name: "count", DAILY_METRICS.name: "events"}  # columns that count every event


def count_problems(
    positions: Mapping[str, int], end: int, counts: Mapping[str, pa.ChunkedArray], documents: DocumentPositions
) -> list[str]:
    """Find counts that differ from the log. Returns the problems, a sentence each.

    Args:
        positions: the checkpoint of each rollup.
        end: the log's `next_seq`.
        counts: the columns of `EVENT_COUNTS`.
        documents: positions that hold no event.
    """
    problems = [
        f"rollup {name} has {position} events, but the log ends at {end}"
        for name, position in positions.items()
        if position > end
    ]
    for name, column in counts.items():
        count, position = sum(column.to_pylist()), positions[name]
        events = position - documents.within(0, position)
        if count != events:
            problems.append(f"rollup {name} has {count} events, but {events} lie before its checkpoint {position}")
    return problems
