"""Writes `object-N.tar.gz`: an object as today's Lakebed leaves it, for later ones to open.

Run `python tests/data/make_object.py` when a format has changed, and keep the old files: a test opens each of them for
ever. Its formats, and what it answered, are beside it in JSON.
"""

import asyncio
import json
import os
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lakebed import Analytics, ManualClock, Rollup
from lakebed.clock import from_us
from lakebed.objects.manifest import FORMAT as OBJECT
from lakebed.tiers.archive.table import FORMAT_VERSION as ARCHIVE
from lakebed.tiers.pipeline.sealing import FORMAT as SEALED
from lakebed.tiers.pipeline.segment import FORMAT as SEGMENT
from lakebed.tiers.storage.migrations import MIGRATIONS

HERE = Path(__file__).parent
FORMATS = {"object": OBJECT, "segment": SEGMENT, "sealed": SEALED, "storage": len(MIGRATIONS), "archive": ARCHIVE}
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Relative, so that the places of files that Iceberg writes down hold in whatever directory the test works.
WAREHOUSE = "shop/archive/warehouse"
SETTINGS = {
    "warehouse": WAREHOUSE,
    "headroom_bytes": 0,
    "retention_s": 0.0,
    "dedupe_window_s": 600.0,
    "snapshots_keep": 2,
    "snapshots_age_s": 0.0,
    "garbage_grace_s": 0.0,
}
QUESTIONS = {
    "events": "SELECT seq, message_id, type, event, user_id, anonymous_id, person_id, timestamp, received_at, "
    "properties, context, revenue FROM events ORDER BY seq",
    "hourly": "SELECT hour, event, count FROM hourly_events ORDER BY ALL",
    "daily": "SELECT date, events, dau FROM daily_metrics ORDER BY ALL",
    "people": "SELECT person_id, first_seen, last_seen, events FROM people ORDER BY ALL",
    "revenue": "SELECT date, plan, total, people, middle FROM revenue ORDER BY ALL",
}


class Shop(Analytics):
    revenue = Rollup(
        "revenue",
        by=["plan"],
        measures={"total": "sum(revenue)", "people": "distinct(person_id)", "middle": "quantile(revenue, 0.5)"},
        grain="day",
    )


def opened(clock):
    """The shop in the working directory."""
    return Shop("shop", root=".", clock=clock, promote={"revenue": float}, **SETTINGS)


async def some(shop, clock, start, end):
    for number in range(start, end):
        moment = clock.now_us() - number % 3 * 86_400_000_000
        await shop.track(
            ("order", "view", "Ünïcode 🎉")[number % 3],
            {"revenue": number / 4, "plan": ("free", "pro")[number % 2], "nested": {"n": [number]}},
            user_id=None if number % 5 == 0 else f"u{number % 7}",
            anonymous_id=f"a{number % 3}",
            timestamp=from_us(moment),
            message_id=f"m{number}",
            context={"ip": "203.0.113.7"},
        )
        clock.advance(7)


async def fill(shop, clock):
    """Events in the archive alone (in two snapshots, one tagged), in a sealed segment, and in the open one."""
    await some(shop, clock, 0, 12)
    await shop.archive()
    await shop.tag("audit")
    await some(shop, clock, 12, 20)
    await shop.identify("u1", {"name": "Ann"})
    await shop.archive()
    await shop.compact()
    clock.advance(5000)
    await shop.rollup()
    await some(shop, clock, 21, 30)
    await shop.rollup()
    await shop._components.pipeline.seal()
    await some(shop, clock, 30, 36)


async def asked_events(shop, **moment):
    """Every event, as lists of texts."""
    return [[str(value) for value in row] for row in await shop.query(QUESTIONS["events"], **moment)]


async def asked(shop):
    """Every answer, as lists of texts."""
    moment = START + timedelta(seconds=90)
    answers = {name: await shop.query(sql) for name, sql in QUESTIONS.items()}
    answers["as of"] = await shop.query(QUESTIONS["events"], as_of=moment)
    answers["tagged"] = await shop.query(QUESTIONS["events"], snapshot="audit")
    answers["dau"] = await shop.dau(5)
    stats = shop.stats()
    answers["stats"] = [(stats.next_seq, stats.watermark), *stats.totals.items()]
    answers["snapshots"] = [
        (snapshot.watermark, snapshot.operation, snapshot.rows, snapshot.tags) for snapshot in await shop.snapshots()
    ]
    return {name: [[str(value) for value in row] for row in rows] for name, rows in answers.items()}


async def make():
    clock = ManualClock(START)
    async with opened(clock) as shop:
        await fill(shop, clock)
        return {"formats": FORMATS, "now_us": clock.now_us(), "answers": await asked(shop)}


def anonymous(entry):
    """An entry of the tar file, without what it says of this machine."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return None if entry.name == "shop/lock" else entry


def main():
    name = f"object-{len(list(HERE.glob('object-*.json'))) + 1}"
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        made = asyncio.run(make())
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            archive.add("shop", filter=anonymous)
    (HERE / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
