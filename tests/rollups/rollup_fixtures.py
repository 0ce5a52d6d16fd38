"""Events, a reader over them, and what rollups of them must be according to plain Python."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa

from lakebed.clock import from_us, to_us
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import as_promotions, with_promoted
from lakebed.rollups.rollups import Rollups
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.storage import Storage

START = to_us(datetime(2026, 3, 28, 12, tzinfo=UTC))
HOUR = 3_600_000_000
PROMOTIONS = as_promotions({"score": int, "seen_at": datetime, "paid": bool, "tier": str})


def event(name="Order", *, at=START, user=None, anonymous=None, **properties):
    return {"event": name, "timestamp": at, "user_id": user, "anonymous_id": anonymous, "properties": properties}


def as_table(events, first=0):
    rows = [
        {
            "seq": first + i,
            "message_id": f"m{first + i}",
            "type": "track",
            "group_id": None,
            "session_id": None,
            "source": None,
            "context": "{}",
            **item,
            "received_at": START,
            "properties": json.dumps(item["properties"]),
        }
        for i, item in enumerate(events)
    ]
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    arrays = [
        pa.array(columns[f.name], pa.int64()).cast(f.type)
        if pa.types.is_timestamp(f.type)
        else pa.array(columns[f.name], f.type)
        for f in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


class Log:
    """A log of events, and the rollups over it. `sizes` says how many rows each table of a read has, over and over."""

    def __init__(self, path, events=(), rollups=(), sizes=(1000,), **settings):
        self.engine = SqlEngine(threads=2, memory_bytes=1 << 29)
        self.storage = Storage(path)
        self.sizes = list(sizes)
        self.table = with_promoted(as_table([]), PROMOTIONS, self.engine)
        self.reads = []
        self.add(events)
        self.declare(rollups, **settings)

    def declare(self, rollups, **settings):
        self.rollups = Rollups(self.storage, rollups, PROMOTIONS, self.engine, self.read, Settings(**settings))

    def add(self, events):
        new = with_promoted(as_table(events, self.end), PROMOTIONS, self.engine)
        self.table = pa.concat_tables([self.table, new])

    @property
    def end(self):
        return self.table.num_rows

    async def read(self, start, end, promoted):
        self.reads.append((start, end))
        columns = [*SCHEMA.names, *(name for name in self.table.column_names if name in promoted)]
        while start < end:
            rows = min(self.sizes[0], end - start)
            self.sizes.append(self.sizes.pop(0))
            yield self.table.select(columns).slice(start, rows)
            start += rows

    async def __aenter__(self):
        await self.storage.open()
        await self.rollups.open()
        return self

    async def __aexit__(self, kind, *_):
        try:
            if kind is None:
                assert await self.rollups.check(self.end) == []
                assert await self.storage.check() == []
        finally:
            await self.rollups.close()
            await self.storage.close()
            self.engine.close()

    async def reopen(self, rollups, **settings):
        await self.rollups.close()
        self.declare(rollups, **settings)
        await self.rollups.open()

    async def rows(self, name, *range_us):
        return (await self.rollups.table(name, *range_us)).to_pylist()


def bucket(us, grain, timezone):
    """The public bucket of a time, by zoneinfo and datetime alone (zones with whole hours)."""
    local = from_us(us).astimezone(ZoneInfo(timezone))
    if grain == "hour":
        return (
            local - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        ).astimezone(UTC)
    return local.date() if grain == "day" else local.date().replace(day=1)


def number(item, name):
    value = item["properties"].get(name)
    if isinstance(value, bool) or value is None:
        return None
    try:
        converted = float(value)
    except ValueError:
        return None
    return converted if math.isfinite(converted) else None


def text(item, name):
    if name in item:
        return item[name]
    value = item["properties"].get(name)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def person(item):
    return item["user_id"] or item["anonymous_id"]


def expected(events, rollup, measures):
    """Rows of a rollup as a dict from (bucket, dimensions) to measures, each measure a function of a list of events."""
    groups, keys = defaultdict(list), defaultdict(set)
    for item in events:
        bucket_start = bucket(item["timestamp"], rollup.grain, rollup.timezone)
        key = tuple(text(item, name) for name in rollup.by)
        if (
            rollup.max_groups is not None
            and key not in keys[bucket_start]
            and len(keys[bucket_start]) >= rollup.max_groups
        ):
            key = ("(other)",) * len(rollup.by)
        else:
            keys[bucket_start].add(key)
        groups[bucket_start, key].append(item)
    return {group: {name: f(members) for name, f in measures.items()} for group, members in groups.items()}


def as_dict(rows, rollup):
    result = {}
    for row in rows:
        bucket_start = row.pop(rollup.bucket_column)
        key = tuple(row.pop(name) for name in rollup.by)
        assert (bucket_start, key) not in result
        result[bucket_start, key] = row
    return result


def decimal_sum(values):
    return Decimal(sum(int(Decimal(str(value)) * 10**9) for value in values)).scaleb(-9) if values else None
