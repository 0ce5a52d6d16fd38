"""Two objects with the same events, of which one has documents of its operator too; and all that is asked of both.

Run as a program it writes `tests/data/documents.tar.gz`: an object with documents by the last Lakebed that counted them
as events. It was run once, with that one's code; the `.json` beside it has the clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from lakebed import Analytics, ManualClock, Rollup
from lakebed.clock import from_us

DATA = Path(__file__).parents[1] / "data"
START = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)  # the documents lie on both sides of midnight
BOOK: dict[str, Any] = {"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.01"}}}
STAGES = ("tail", "sealed", "archived", "archived and tail", "archived in two runs", "compacted", "pruned", "reopened")
# Relative, so that the places of files that Iceberg writes down hold in whatever directory the test works.
WAREHOUSE = "shop/archive/warehouse"
SETTINGS: dict[str, Any] = {
    "warehouse": WAREHOUSE,
    "headroom_bytes": 0,
    "retention_s": 0.0,
    "dedupe_window_s": 600.0,
    "snapshots_age_s": 0.0,
    "garbage_grace_s": 0.0,
}
STATEMENTS = (
    "SELECT * EXCLUDE (seq, received_at, message_id) FROM events ORDER BY timestamp, type, properties",
    "SELECT count(*) FROM events",
    "SELECT count(*), count(event), count(DISTINCT type), max(timestamp) FROM events",
    "SELECT count(*) FROM events WHERE timestamp >= '2026-03-02'",
    "SELECT source, type, count(*) FROM events GROUP BY ALL ORDER BY ALL",
    "SELECT * FROM people ORDER BY ALL",
)
TABLES = ("hourly_events", "daily_metrics", "kinds", "sums")
REPORTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("funnel", {"steps": ["view", "order"]}),
    ("retention", {"grain": "day", "periods": 3}),
    ("lifecycle", {"grain": "day"}),
    ("stickiness", {}),
    ("sessions", {}),
    ("segmentation", {"by": "type"}),
    ("top", {"what": "type", "other": True}),
    ("paths", {}),
    ("performance", {}),
    ("errors", {}),
)
FILLED = {
    "first": "view",
    "second": "order",
    "user_id": "u1",
    "user": "u1",
    "event": "view",
    "path": "/",
    "sku": "calls",
}


class Shop(Analytics):
    """One that counts everything, with a condition and without."""

    kinds = Rollup("kinds", by=["type"], measures={"count": "count()", "last": "max(timestamp)"}, grain="day")
    sums = Rollup(
        "sums",
        by=["source"],
        measures={"count": "count()", "people": "distinct(person_id)", "middle": "quantile(revenue, 0.5)"},
        grain="hour",
        where="type <> 'page'",
    )


def opened(clock: ManualClock, **settings: Any) -> Shop:
    """The shop in the working directory."""
    return Shop("shop", root=".", clock=clock, promote={"revenue": float}, **SETTINGS | settings)


async def grow(
    shop: Shop,
    clock: ManualClock,
    *,
    documents: bool,
    to: str = STAGES[-1],
    at_stage: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Take an empty object through the stages up to `to`. `at_stage` is called when each is reached."""
    for number, stage in enumerate(STAGES):
        clock.advance(600)
        await events(shop, clock, number, documents=documents)
        clock.advance(600)
        if stage in ("sealed", "pruned"):
            await shop.rollup()
            await shop._components.pipeline.seal()
        if stage in ("archived", "archived in two runs"):
            await shop.archive()
        if stage == "compacted":
            await shop.archive()
            await shop.compact()
            await shop.tag("audit")
        if stage == "pruned":
            clock.advance(7200)
            await shop.archive()
        if stage == "reopened":
            await shop.close()
            await shop.open()
        if at_stage is not None:
            await at_stage(stage)
        if stage == to:
            break


async def events(shop: Shop, clock: ManualClock, number: int, *, documents: bool) -> None:
    """Some events; documents go before, between and after them, and into their commits."""
    moment = from_us(clock.now_us())  # told, since each commit is received a microsecond after the one before
    if documents:
        await shop.save_cohort("buyers", {"did": "order", "at_least": number + 1})
    calls = [
        shop.batch(
            [
                {
                    "event": ("order", "view")[at % 2],
                    "userId": f"u{(number + at) % 4}",
                    "messageId": f"m{number}-{at}",
                    "timestamp": moment.isoformat(),
                    "properties": {"revenue": at / 4, "plan": ("free", "pro")[at % 2], "duration_ms": at, "path": "/"},
                }
                for at in range(9)
            ]
        ),
        shop.page(name="Home", anonymous_id=f"a{number}", message_id=f"p{number}", timestamp=moment),
        shop.identify("u1", {"n": number}, message_id=f"i{number}", timestamp=moment),
    ]
    others = []
    if documents:
        prices = BOOK["prices"] | {f"sku{number}": BOOK["prices"]["calls"]}
        others = [
            shop.save_dataset("requests", {"event": "view", "doubles": [f"double{number}"]}),
            shop.save_price_book("default", BOOK | {"prices": prices}),
            shop.save_quota("acme", "calls", 100 + number),
        ]
    await asyncio.gather(*calls[:1], *others, *calls[1:])
    clock.advance(1)
    merge = await shop.merge(f"ghost-{number}", f"shade-{number}", why="a test")  # an event, of nobody
    clock.advance(1)
    if number % 2:
        await shop.unmerge(merge.id)
    clock.advance(1)
    usage = {"user_id": "u1", "timestamp": moment, "message_id": f"use{number}"}
    await shop.track_usage("acme", "calls", number + 1, "call", **usage)
    if documents and number == 3:
        await shop.invoice("acme", "2026-02", issue=True)
        await shop.delete_cohort("buyers")


async def answers(shop: Shop, moments: Sequence[datetime] = (), *, untrusted: bool = False) -> dict[str, Any]:
    """The answer of every surface, without positions in the log, because documents take some of these."""
    results: dict[str, Any] = {}
    for moment in (None, *moments):
        for sql in STATEMENTS:
            results[f"{sql} as of {moment}"] = await shop.query(sql, as_of=moment)
        for table in TABLES[: 2 if moment else None]:
            results[f"{table} as of {moment}"] = await shop.query(f"SELECT * FROM {table} ORDER BY ALL", as_of=moment)
        results[f"dau as of {moment}"] = await shop.dau(3, as_of=moment)
        results[f"wau as of {moment}"] = await shop.wau(2, as_of=moment)
        span = {"start": START - timedelta(days=1), "end": START + timedelta(days=2), "as_of": moment}
        results[f"timeseries as of {moment}"] = await shop.timeseries(**span)
        results[f"timeseries by as of {moment}"] = await shop.timeseries(by="type", grain="day", **span)
        for name, arguments in REPORTS:
            results[f"{name} as of {moment}"] = await getattr(shop, name)(**arguments, as_of=moment)
    for template in shop.templates():
        required = {
            parameter.name: FILLED.get(parameter.name, "x")
            for parameter in template.parameters
            if parameter.default is None
        }
        results[f"template {template.name}"] = await shop.template(template.name, required)
    for snapshot in await shop.snapshots():
        results[f"snapshot {len(results)}"] = await shop.query(STATEMENTS[0], snapshot=snapshot.id)
        results[f"count of snapshot {len(results)}"] = await shop.query(STATEMENTS[1], snapshot=snapshot.id)
    points = await shop.analytics_engine("SELECT blob1, count() AS n FROM view GROUP BY blob1 FORMAT JSON")
    results["Analytics Engine"] = points.table.to_pylist()
    if untrusted:
        for sql in STATEMENTS[:3]:
            results[f"untrusted {sql}"] = await shop.query_untrusted(sql)
    tiers = await shop.tiers()
    results["tiers"] = [(tiers.first_day, tiers.last_day)]
    stats, pulse = msgspec.structs.asdict(shop.stats()), msgspec.structs.asdict(await shop.pulse())
    pulse["newest"] = [(event.type, event.event, event.person) for event in pulse["newest"]]
    for numbers in (stats, pulse):
        del numbers["next_seq"], numbers["watermark"]
    results["stats"], results["page"] = stats.items(), pulse.items()
    return {name: [[str(value) for value in row] for row in rows] for name, rows in results.items()}


def main() -> None:
    async def make() -> int:
        clock = ManualClock(START)
        async with opened(clock) as shop:
            await grow(shop, clock, documents=True, to="pruned")
            await shop.rollup()
            clock.advance(60)
            await events(shop, clock, 20, documents=True)
        return clock.now_us()

    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        now_us = asyncio.run(make())
        with tarfile.open(DATA / "documents.tar.gz", "w:gz") as archive:
            archive.add("shop", filter=_anonymous)
    (DATA / "documents.json").write_text(json.dumps({"now_us": now_us}) + "\n", "utf-8")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """An entry of the tar file, without what it says of this machine."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return None if entry.name == "shop/lock" else entry


if __name__ == "__main__":
    main()
