"""The parts of one object that run queries, assembled as Analytics does, and a plain list of the events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakebed.clock import ManualClock, from_us, to_us
from lakebed.disk import Disk
from lakebed.events.event import Event
from lakebed.events.promotions import as_promotions
from lakebed.events.validation import encode_object, validate
from lakebed.query.event_history import EventHistory
from lakebed.query.queries import Queries
from lakebed.reports.metrics import Metrics
from lakebed.rollups.rollup import Rollup
from lakebed.rollups.rollups import Rollups
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.storage import Storage

START = datetime(2026, 3, 20, 12, tzinfo=UTC)
REVENUE = Rollup("revenue", by=["plan"], measures={"total": "sum(amount)", "orders": "count()"}, grain="day")


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


class Parts:
    """Real parts in `directory`. `model` has a dict for each event stored, in order of seq."""

    def __init__(self, directory: Path, *, promote: dict[str, type] | None = None, **settings: Any) -> None:
        self.clock = ManualClock(START)
        self.settings = Settings.load(environ={}, headroom_bytes=0, **settings)
        self.promotions = as_promotions({"amount": float, "paid": bool} if promote is None else promote)
        self.engine = SqlEngine(threads=2, memory_bytes=self.settings.query_memory_bytes)
        self.storage = Storage(directory / "storage.db")
        self.pipeline = Pipeline(
            directory / "log",
            "shop",
            self.settings,
            clock=self.clock,
            disk=Disk(),
            promotions=self.promotions,
            engine=self.engine,
            on_commit=lambda _events, _received: None,
        )
        self.archive = Archive(directory / "archive", "shop", self.settings, self.clock, Disk(), self.promotions)
        self.history = EventHistory(self.pipeline, self.archive, self.promotions, self.engine)
        self.rollups = Rollups(self.storage, [REVENUE], self.promotions, self.engine, self.history.read, self.settings)
        self.queries = Queries(
            self.history,
            self.engine,
            self.settings,
            self.clock,
            name="shop",
            tables=self.tables,
            rollups=[REVENUE.name],
        )
        self.metrics = Metrics(
            self.queries,
            self.rollups,
            self.catch_up,
            promotions=self.promotions,
            clock=self.clock,
            max_rows=self.settings.query_max_rows,
        )
        self.model: list[dict[str, Any]] = []

    async def tables(self, names: set[str]) -> dict[str, pa.Table]:
        await self.catch_up()
        return {name: await self.rollups.table(name) for name in names}

    async def catch_up(self, name: str | None = None, _max_staleness: float | None = None) -> int:
        end = self.pipeline.next_seq
        await self.rollups.catch_up(end, name)
        return end

    async def track(self, items: Sequence[dict[str, Any]]) -> None:
        """Store events as one commit. `timestamp` is microseconds; without it, now."""
        now = self.clock.now_us()
        events = []
        for item in items:
            at = item.get("timestamp")
            event = Event(
                **(item | {"timestamp": None if at is None else from_us(at).isoformat()}),
            )
            event.properties = encode_object("properties", item.get("properties", {}))
            validate(event, now)
            events.append(event)
        for item, receipt in zip(items, await self.pipeline.append(events), strict=True):
            with self.pipeline.view() as view:
                received = view.tail.column("received_at")[-1].value
            self.model.append(
                {
                    "seq": receipt.seq,
                    "event": item.get("event"),
                    "person": item.get("user_id") or item.get("anonymous_id"),
                    "timestamp": received if item.get("timestamp") is None else item["timestamp"],
                    "received_at": received,
                    "properties": item.get("properties", {}),
                }
            )

    async def seal(self) -> None:
        await self.pipeline.seal()

    async def to_archive(self, end: int | None = None) -> None:
        """Archive all events, or those before `end`, as one commit."""
        start = await self.archive.watermark()
        end = self.pipeline.next_seq if end is None else end
        if start < end:
            tables = [table async for table in self.history.read(start, end)]
            await self.archive.append(pa.concat_tables(tables), start, end)

    async def close(self) -> None:
        await self.queries.close()
        await self.pipeline.close()
        await self.rollups.close()
        await self.archive.close()
        self.history.close()
        self.engine.close()
        await self.storage.close()


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[Parts]:
    directory.mkdir(parents=True, exist_ok=True)
    parts = Parts(directory, **options)
    try:
        await parts.storage.open()
        await parts.pipeline.open()
        await parts.rollups.open()
        yield parts
    finally:
        await parts.close()
