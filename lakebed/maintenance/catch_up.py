"""CatchUp: brings the consumers that answers come from, rollups and identity, up to the end of the log."""

from __future__ import annotations

import pyarrow as pa

from lakebed.clock import Clock
from lakebed.identity.identity import Identity
from lakebed.rollups.rollups import Rollups
from lakebed.settings import Settings
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["CatchUp"]


class CatchUp:
    """Called before each read, so that an answer has every event acknowledged before the call."""

    def __init__(
        self, pipeline: Pipeline, rollups: Rollups, identity: Identity, settings: Settings, clock: Clock
    ) -> None:
        self._pipeline = pipeline
        self._rollups = rollups
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._last: dict[str | None, tuple[float, int]] = {}  # by rollup: the time of the last catch-up, and its end

    async def rollup(self, name: str | None = None, max_staleness: float | None = None) -> int:
        """Bring one rollup, or all, up to the last acknowledged event, and return the seq that it stands at.

        If the rollup counts people, identity is brought up to date too.

        Args:
            max_staleness: seconds. Do nothing if the last catch-up was less than so long ago.
        """
        now = self._clock.monotonic()
        last, end = self._last.get(name, (now, 0))
        if max_staleness is not None and name in self._last and now - last <= max_staleness:
            return end
        end = await self.durable_end()
        await self._rollups.catch_up(end, name)
        if name is None or self._rollups.counts_people(name):
            await self._identity.catch_up(end)
        self._last[name] = (now, end)
        return end

    async def identity(self, end: int) -> None:
        """Apply what the events with `seq < end` say about identity."""
        await self.durable_end()
        await self._identity.catch_up(end)

    async def rollup_tables(self, names: set[str]) -> dict[str, pa.Table]:
        """The tables of these rollups, up to date."""
        tables = {}
        for name in sorted(names):
            await self.rollup(name)
            tables[name] = await self._rollups.table(name)
        return tables

    async def people(self, end: int) -> pa.Table:
        """Pairs of id and person by the events with `seq < end`."""
        await self.identity(end)
        return (await self._identity.mapping_at(end)).pairs

    async def durable_end(self) -> int:
        """The end of the log, made durable: a checkpoint is durable once committed, and its events have to be first."""
        end = self._pipeline.next_seq
        if self._settings.durability == "os":
            await self._pipeline.sync()
        return end
