"""Analytics: the four tiers in one object. It composes them; each group of verbs has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakebed.answers import Answers
from lakebed.billing.usage import Usage
from lakebed.components import Components, assemble, disassemble, rollups_of
from lakebed.definitions.datasets import Datasets
from lakebed.ingest.dead_letters import Letters
from lakebed.maintenance.schedules import Upkeep
from lakebed.monitoring.health import LifetimeCounts, tallied
from lakebed.objects.durable_object import DurableObject
from lakebed.people import People
from lakebed.reports.reports import Reporting
from lakebed.tracking import Tracking

__all__ = ["Analytics"]


class Analytics(Tracking, Answers, Reporting, Usage, Datasets, People, Letters, Upkeep, DurableObject):
    """A product-analytics engine in a directory of its own. An async context manager.

    Args:
        name: `^[a-z0-9][a-z0-9_-]{0,62}$`.
        root: the directory that holds it.
        promote: properties that become typed columns, for ever: `{"revenue": float}`. Types are str, float, int, bool,
            Decimal, datetime.
        options: `settings`, `clock`, `disk`, `on_error` and single settings, as for `DurableObject`.

    Subclasses may declare `Rollup`s as class attributes and methods under `@every`.
    """

    def __init__(self, name: str, *, promote: Mapping[str, type] | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._promote = dict(promote or {})
        self._rollups = rollups_of(type(self))
        self._tiers: Components | None = None
        self._tally = LifetimeCounts()  # of the openings that are over

    async def _open(self) -> None:
        self._tiers = Components()
        with self._unavailable():
            await assemble(self._tiers, self, self._promote, self._rollups)

    async def _close(self) -> None:
        tiers = self._tiers
        if tiers is not None:
            try:
                await disassemble(tiers)
            finally:
                self._tiers = None
                self._tally.add(tallied(tiers))
