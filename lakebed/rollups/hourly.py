"""The number of events of each name in each hour."""

from __future__ import annotations

from lakebed.rollups.rollup import BuiltInRollup

__all__ = ["HOURLY_EVENTS"]

HOURLY_EVENTS = BuiltInRollup("hourly_events", by=["event"], measures={"count": "count()"}, grain="hour")
