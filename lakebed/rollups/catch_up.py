"""What a read does before it answers: it brings rollups and identity up to the end of the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pyarrow as pa

from lakebed.clock import Clock
from lakebed.rollups.rollups import Rollups
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["CatchUp", "IdentityConsumer", "PeopleTable"]


class PeopleTable(Protocol):
    """Who is who at one moment."""

    @property
    def pairs(self) -> pa.Table:
        """A table of identity and person_id."""
        ...


class IdentityConsumer(Protocol):
    """The consumer of the log that knows who is who; `identity.Identity` is one."""

    async def catch_up(self, end: int) -> None:
        """Take in all events with `seq < end`."""
        ...

    async def mapping_at(self, end: int) -> PeopleTable:
        """Who was who by the events with `seq < end`."""
        ...


class CatchUp:
    """Brings the consumers of one object's log up to what is acknowledged.

    Args:
        pipeline: the log.
        rollups: the rollups, of which each has a checkpoint of its own.
        identity: who is who.
        clock: measures how stale a rollup is.
        sync_first: sync the log before a consumer reads it, as `durability="os"` needs. A checkpoint is durable when it
            is committed, and the events before it have to be durable first.
    """

    def __init__(
        self, pipeline: Pipeline, rollups: Rollups, identity: IdentityConsumer, clock: Clock, *, sync_first: bool
    ) -> None:
        self._pipeline = pipeline
        self._rollups = rollups
        self._identity = identity
        self._clock = clock
        self._sync_first = sync_first
        self._done: dict[str | None, tuple[float, int]] = {}  # by rollup: when it was caught up last, and up to where

    async def durable_end(self) -> int:
        """The seq after the last acknowledged event. All events before it are as durable as the settings promise."""
        end = self._pipeline.next_seq
        if self._sync_first:
            await self._pipeline.sync()
        return end

    async def rollup(self, name: str | None = None, max_staleness: float | None = None) -> int:
        """Bring one rollup, or all, up to the acknowledged end of the log, and identity too where people are counted.

        Args:
            name: the rollup; None means all.
            max_staleness: seconds; if the last catch-up was not longer ago, nothing is done.

        Returns:
            The seq up to which the rollup stands.

        Raises:
            StorageUnavailable, InvalidRollup, LogBehind: as `Rollups.catch_up`.
        """
        now = self._clock.monotonic()
        done_at, end = self._done.get(name, (now, 0))
        if max_staleness is not None and name in self._done and now - done_at <= max_staleness:
            return end
        end = await self.durable_end()
        await self._rollups.catch_up(end, name)
        if name is None or self._rollups.counts_people(name):
            await self._identity.catch_up(end)
        self._done[name] = (now, end)
        return end

    async def tables(self, names: Iterable[str]) -> dict[str, pa.Table]:
        """The tables of these rollups, each caught up with every event that was acknowledged before the call."""
        tables = {}
        for name in sorted(names):
            await self.rollup(name)
            tables[name] = await self._rollups.table(name)
        return tables

    async def identity(self, end: int) -> None:
        """Take in what the events with `seq < end` say about who is who."""
        await self.durable_end()
        await self._identity.catch_up(end)

    async def people(self, end: int) -> pa.Table:
        """Who was who by the events with `seq < end`: a table of identity and person_id."""
        await self.identity(end)
        return (await self._identity.mapping_at(end)).pairs
