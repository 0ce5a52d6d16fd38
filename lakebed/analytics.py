"""Analytics: the four tiers in one object. It composes them; how each verb works is said where it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from lakebed.assembly import Tiers, assemble, disassemble, rollups_of
from lakebed.checkup import Problem, check_up
from lakebed.decoding import from_call
from lakebed.errors import ObjectClosed
from lakebed.events import Event, Receipt
from lakebed.intake import Ack
from lakebed.maintenance import Archived, RolledUp
from lakebed.objects import DurableObject
from lakebed.query.result import Result
from lakebed.query.stats import Stats
from lakebed.schedule import every
from lakebed.scheduler import JobRun
from lakebed.tiers.archived import Compaction, Expiry, Garbage, Snapshot
from lakebed.tiers.counters import Counters

__all__ = ["Analytics"]

Moment = datetime | date | str
Instant = datetime | str
Properties = Mapping[str, Any] | None


class Analytics(DurableObject):
    """A product-analytics engine in a directory of its own. An async context manager.

    Args:
        name: `^[a-z0-9][a-z0-9_-]{0,62}$`.
        root: the directory that holds it.
        promote: properties that become typed columns, for ever: `{"revenue": float}`. Types are str, float, int, bool,
            Decimal, datetime.
        options: `settings`, `clock`, `disk`, `on_error` and single settings, as for `DurableObject`.

    Subclasses may declare `Rollup`s as class attributes and methods under `@every`.

    Tracking calls are plain functions that return an awaitable. Awaiting it means that the event is durable; not
    awaiting it is fire-and-forget, whose failure goes to `on_error` and `check()`.
    """

    def __init__(self, name: str, *, promote: Mapping[str, type] | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._promote = dict(promote or {})
        self._rollups = rollups_of(type(self))
        self._tiers: Tiers | None = None

    async def _open(self) -> None:
        self._tiers = Tiers()
        with self._unavailable():
            await assemble(self._tiers, self, self._promote, self._rollups)

    async def _close(self) -> None:
        if self._tiers is not None:
            await disassemble(self._tiers)
        self._tiers = None

    @property
    def _up(self) -> Tiers:
        if self._tiers is None or not self._tiers.ready:
            hint = "Use `async with`, or call open()"
            raise ObjectClosed(f"{type(self).__name__} {self.name!r} is not open", hint=hint, name=self.name)
        return self._tiers

    # Tracking

    def track(
        self,
        event: str,
        properties: Properties = None,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        group_id: str | None = None,
        session_id: str | None = None,
        timestamp: Moment | float | None = None,
        message_id: str | None = None,
        context: Properties = None,
    ) -> Ack[Receipt]:
        """Store that `event` happened. Awaiting the result raises InvalidEvent, DiskFull, LogUnavailable, Backpressure.

        Args:
            event: its name, at most 200 characters.
            properties: JSON values; the event has at most 32 KB.
            timestamp: when it happened, if not now; any past, at most 24 hours ahead. Naive means UTC.
            message_id: a retry with the same one within 24 hours stores nothing and gets status "duplicate".
        """
        return self._track(
            "track",
            properties,
            event=event,
            user_id=user_id,
            anonymous_id=anonymous_id,
            group_id=group_id,
            session_id=session_id,
            timestamp=timestamp,
            message_id=message_id,
            context=context,
        )

    def page(
        self, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a page view. `ids` are `track`'s keywords; with one positional argument it is the name."""
        name, category = (category, None) if name is None else (name, category)
        return self._track("page", properties, name=name, category=category, **ids)

    def screen(
        self, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a screen view; arguments as for `page`."""
        name, category = (category, None) if name is None else (name, category)
        return self._track("screen", properties, name=name, category=category, **ids)

    def identify(self, user_id: str | None = None, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store what is known of a person. Needs a `user_id` or an `anonymous_id`."""
        return self._track("identify", traits, user_id=user_id, **ids)

    def group(self, group_id: str, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store that a person belongs to a group, and what is known of it."""
        return self._track("group", traits, group_id=group_id, **ids)

    def alias(self, user_id: str, previous_id: str, **ids: Any) -> Ack[Receipt]:
        """Store that `previous_id` and `user_id` are one person."""
        return self._track("alias", None, user_id=user_id, previous_id=previous_id, **ids)

    def _track(self, kind: str, properties: Properties, **fields: Any) -> Ack[Receipt]:
        tiers = self._up
        return tiers.intake.one(lambda: from_call(kind, properties, **fields))

    def batch(
        self, items: Iterable[Mapping[str, Any] | Event] | bytes | str, *, source: str | None = "python"
    ) -> Ack[list[Receipt]]:
        """Store many events: mappings (Segment's names or ours), or JSON or NDJSON bytes.

        Awaiting gives one Receipt an item, in order. A bad item is "rejected" with a reason; the others are stored.

        Raises:
            InvalidEvent: at once, when the bytes as a whole are no JSON.
        """
        return self._up.intake.batch(items, source)

    async def flush(self) -> None:
        """Return when all events handed over so far are durable or have failed."""
        await self._up.pipeline.flush()

    # Answers

    @property
    def counters(self) -> Counters:
        """L0: live counters. `incr`, `get`, `count`, `keys`, `top`, `ttl`, `delete`."""
        return self._up.counters

    def stats(self) -> Stats:
        """Events in the last minute and hour, who is active now, totals. Answered from memory."""
        return self._up.stats()

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

    # The scheduled work, on demand

    @every.hour
    async def rollup(self) -> RolledUp:
        """Bring all rollups up to date and let the log go where every consumer has passed it. Idempotent."""
        return await self._up.maintenance.rollup()

    async def archive(self, older_than: timedelta | datetime | float | None = None) -> Archived:
        """Move events into Iceberg: all acknowledged so far, or those received before a time or an age in seconds."""
        return await self._up.maintenance.archive(older_than)

    async def compact(self) -> Compaction:
        """Merge small archive files of the same day. No answer changes."""
        return await self._up.archive.compact()

    async def expire(self, *, dry_run: bool = False) -> Expiry:
        """Expire old archive snapshots. `as_of` answers do not change; `snapshot=` ones may be gone."""
        return await self._up.archive.expire(dry_run=dry_run)

    async def collect_garbage(self, *, dry_run: bool = False) -> Garbage:
        """Delete archive files that no snapshot refers to."""
        return await self._up.archive.collect_garbage(dry_run=dry_run)

    async def snapshots(self) -> list[Snapshot]:
        """The archive's snapshots, oldest first."""
        return await self._up.archive.snapshots()

    async def tag(self, name: str, snapshot_id: int | None = None) -> None:
        """Name a snapshot (the current one) and keep it from expiring."""
        await self._up.archive.tag(name, snapshot_id)

    async def untag(self, name: str) -> None:
        """Let a tagged snapshot expire in its turn."""
        await self._up.archive.untag(name)

    @every.day.at("3am")
    async def tidy(self) -> None:
        """The daily job: catch up, then expire snapshots and collect what they leave behind."""
        await self.rollup()
        if self._up.archive.exists():
            await self.expire()
            await self.collect_garbage()

    @every.Sunday.at("4am")
    async def settle(self) -> None:
        """The weekly job: archive what is older than the window, then merge small files."""
        await self.archive(older_than=self.settings.archive_window_s)
        if self._up.archive.exists():
            await self.compact()

    async def run_due(self) -> list[JobRun]:
        """Run what this object's schedules owe by now."""
        return await self._up.scheduler.run_due()

    async def check(self) -> list[Problem]:
        """What is not as promised, in any tier; empty when healthy."""
        return await check_up(self._up)
