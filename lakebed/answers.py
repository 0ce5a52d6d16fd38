"""Answers: live counters, daily actives, time series, SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lakebed.assembled import Assembled, Instant, Moment
from lakebed.errors import QueryRefused
from lakebed.monitoring.live_snapshot import LiveSnapshot
from lakebed.monitoring.stats import Stats
from lakebed.monitoring.tier_status import TierStatus, take_inventory
from lakebed.query.result import Result
from lakebed.query.templates.template import Template, library
from lakebed.settings import Settings
from lakebed.tiers.counters.counters import Counters

__all__ = ["Answers"]


class Answers(Assembled):
    """What an Analytics object is asked."""

    directory: Path
    settings: Settings

    @property
    def counters(self) -> Counters:
        """L0: live counters. `incr`, `get`, `count`, `keys`, `top`, `ttl`, `delete`."""
        return self._up.counters

    def stats(self) -> Stats:
        """Events in the last minute and hour, who is active now, totals. Answered from memory."""
        return self._up.stats()

    async def pulse(self) -> LiveSnapshot:
        """What is going on, small enough to be sent every second: counts by second and minute, the newest events."""
        return await self._up.pulse.read(self._up.stats())

    async def tiers(self) -> TierStatus:
        """What lies in each tier, how far each consumer of the log has come, and the disk. Changes nothing.

        Raises:
            StorageUnavailable: the rollups cannot be read. An archive that does not answer is told in its place.
        """
        return await take_inventory(self._up, self.directory, self.settings)

    async def dau(
        self,
        days: int = 7,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: Instant | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Daily actives: rows `date, dau, events` of whole UTC days, inclusive; the last `days` unless said.

        `as_of` is exact at any instant; `max_staleness` allows an answer that lacks the newest so many seconds.
        """
        return await self._up.metrics.dau(days, start=start, end=end, as_of=as_of, max_staleness=max_staleness)

    async def wau(
        self,
        days: int = 7,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: Instant | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Weekly actives: rows `date, wau, events`, each of the seven days that end there."""
        return await self._up.metrics.wau(days, start=start, end=end, as_of=as_of, max_staleness=max_staleness)

    async def mau(
        self,
        days: int = 7,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: Instant | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Monthly actives: rows `date, mau, events`, each of the thirty days that end there."""
        return await self._up.metrics.mau(days, start=start, end=end, as_of=as_of, max_staleness=max_staleness)

    async def timeseries(
        self,
        event: str | None = None,
        *,
        start: Moment,
        end: Moment,
        grain: str = "hour",
        by: str | Sequence[str] | None = None,
        measure: str = "count",
        where: str | None = None,
        as_of: Instant | None = None,
    ) -> Result:
        """Rows `time, value` and the `by` columns over `[start, end)`."""
        return await self._up.metrics.timeseries(
            event, start=start, end=end, grain=grain, by=by, measure=measure, where=where, as_of=as_of
        )

    async def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        as_of: Instant | None = None,
        snapshot: int | str | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it stops DuckDB, which asyncio.timeout cannot
    ) -> Result:
        """One read-only SELECT over `events`, `people`, `hourly_events`, `daily_metrics` and this object's rollups.

        Args:
            params: a sequence for `?`, a mapping for `$name`.
            as_of: the answer as it was at that instant, exactly.
            snapshot: the archive as of an Iceberg snapshot id or tag.
            limit: cut the result to so many rows.
            timeout: seconds; by default `query_timeout_s`.

        Raises:
            QueryRefused, QueryTimeout, QueryTooLarge, QueryError, InvalidAsOf, SnapshotExpired.
        """
        return await self._up.queries.run(sql, params, as_of=as_of, snapshot=snapshot, limit=limit, timeout=timeout)

    async def query_untrusted(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        as_of: Instant | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
    ) -> Result:
        """The same answer to SQL that a stranger wrote: an allowlist, and a process of its own that can be killed.

        It sees the tables of `query` and no file, network, setting or variable besides. Its limits are the settings
        `untrusted_*`; `limit` and `timeout` can only lower them.

        Raises:
            QueryRefused, QueryTimeout, QueryTooLarge, QueryError, InvalidAsOf.
            QueryBusy: as many run as may; ask again.
            QueryCrashed: its process ended without an answer.
        """
        return await self._up.untrusted.run(sql, params, as_of=as_of, limit=limit, timeout=timeout)

    def templates(self) -> list[Template]:
        """The named questions that there are, with their parameters and their SQL. docs/templates.md lists them."""
        return list(library().values())

    async def template(self, name: str, params: Mapping[str, Any] | None = None, **named: Any) -> Result:
        """The answer to a named question. It is asked as `query_untrusted` asks.

        Args:
            params: values by parameter, like `named`; those that are left out are the defaults. Each template also
                takes `as_of`: only what was received up to then.

        Raises:
            QueryRefused: there is no such template, or a parameter is missing, unknown or not of its type; the message
                names it. And what `query_untrusted` raises.
        """
        found = library().get(name)
        if found is None:
            hint = f"There are {', '.join(library())}"
            raise QueryRefused(f"there is no template {str(name)[:40]!r}", hint=hint)
        given = {**(params or {}), **named}
        as_of = given.pop("as_of", None)
        return await self.query_untrusted(found.sql, found.bind(given), as_of=as_of)
