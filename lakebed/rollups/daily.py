"""The number of events and people on each day."""

from __future__ import annotations

from lakebed.rollups.rollup import BuiltInRollup

__all__ = ["DAILY_METRICS"]

DAILY_METRICS = BuiltInRollup(
    "daily_metrics", measures={"events": "count()", "dau": "distinct(person_id)"}, grain="day"
)
