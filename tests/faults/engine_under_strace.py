"""The program into which faults of the kernel are injected: it works on an object, and reports each result.

`python engine_under_strace.py ROOT STEP…` runs the steps and writes one line of JSON, `[step, result]`, for each. A
result is `{"error": type, "code": …}` if the step raised. `reopen` closes the object and opens it again.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from lakebed import Analytics, Rollup
from lakebed.errors import LakebedError

SETTINGS = {"headroom_bytes": 0, "segment_events": int(os.environ.get("SEGMENT_EVENTS", "4"))}
TODAY = datetime(2026, 1, 15, 12, tzinfo=UTC)


class Shop(Analytics):
    plans = Rollup("plans", by=["plan"], measures={"n": "count()", "people": "distinct(person_id)"}, grain="day")


def tell(step, result):
    os.write(1, json.dumps([step, result]).encode() + b"\n")


class Steps:
    """The steps. `track` uses the next message id, `again` the one before."""

    def __init__(self, shop, root):
        self.shop = shop
        self.root = root
        self.number = 0

    async def track(self):
        self.number += 1
        return await self.again()

    async def again(self):
        name = f"{os.getpid()}-{self.number}"
        receipt = await self.shop.track(
            "e", {"plan": "free"}, user_id=f"u{self.number % 3}", message_id=name, timestamp=TODAY
        )
        return [receipt.status, receipt.seq, name]

    async def large(self):
        """Track an event of almost the largest size, to fill a disk."""
        self.number += 1
        receipt = await self.shop.track("large", {"text": "x" * 30_000}, message_id=f"l{self.number}", timestamp=TODAY)
        return [receipt.status, receipt.seq, receipt.message_id]

    async def fill(self):
        """Repeat `large` until it fails."""
        while True:
            tell("large", await self.large())

    async def roomier(self):
        """Free disk space: delete the ballast file."""
        (Path(self.root) / "ballast").unlink()

    async def rollup(self):
        return (await self.shop.rollup()).seq

    async def archive(self):
        return (await self.shop.archive()).watermark

    async def dau(self):
        (row,) = (await self.shop.dau(start=TODAY, end=TODAY)).rows
        return [row[1], row[2]]

    async def count(self):
        return (await self.shop.query("SELECT count(*) FROM events")).scalar()

    async def plans(self):
        return (await self.shop.query("SELECT coalesce(sum(n), 0)::BIGINT FROM plans")).scalar()

    async def check(self):
        return [problem.message for problem in await self.shop.check()]

    async def reopen(self):
        await self.shop.close()
        await self.shop.open()


async def attempt(steps, name):
    try:
        result = await getattr(steps, name)()
    except LakebedError as error:
        result = {"error": type(error).__name__, "code": getattr(error, "code", None)}
    tell(name, result)


async def main(root, *names):
    shop = Shop("shop", root=root, **SETTINGS)
    steps = Steps(shop, root)
    try:
        await shop.open()
    except LakebedError as error:
        tell("open", {"error": type(error).__name__, "code": getattr(error, "code", None)})
        return
    for name in names:
        await attempt(steps, name)
    await attempt(shop, "close")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
