"""Assembled: what the verbs of an Analytics object stand on, its tiers."""

from __future__ import annotations

from datetime import date, datetime

from lakebed.clock import Clock
from lakebed.components import Components
from lakebed.errors import ObjectClosed
from lakebed.monitoring.health import LifetimeCounts

__all__ = ["Assembled", "Instant", "Moment"]

Moment = datetime | date | str
Instant = datetime | str


class Assembled:
    """The base of each group of verbs: its tiers while it is open."""

    name: str
    clock: Clock
    _tiers: Components | None
    _tally: LifetimeCounts

    @property
    def _up(self) -> Components:
        if self._tiers is None or not self._tiers.ready:
            hint = "Use `async with`, or call open()"
            raise ObjectClosed(f"{type(self).__name__} {self.name!r} is not open", hint=hint, name=self.name)
        return self._tiers
