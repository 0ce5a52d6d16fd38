"""Never run: mypy reads it (`make type`), so that what users' type checkers see does not change unnoticed."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from lakebed import (
    Analytics,
    DeadLetter,
    Namespace,
    Problem,
    Receipt,
    Replayed,
    Result,
    Rollup,
    Row,
    Stats,
    connect,
    every,
)
from lakebed.tiers.archive.models import Snapshot


class Shop(Analytics):
    """A subclass as in the README."""

    revenue = Rollup("revenue", by=["plan"], measures={"total": "sum(revenue)"}, grain="day")

    @every.hour
    async def warm(self) -> None:
        """Scheduled methods keep their type."""
        assert_type(await self.dau(7), Result)


async def embedded() -> None:
    """The calls of the table in the README and the quickstart."""
    async with Shop("shop", root="data", promote={"revenue": float}, segment_events=10) as shop:
        assert_type(shop, Shop)
        assert_type(await shop.track("Seen", {"a": 1}, user_id="u", timestamp=datetime.now(UTC)), Receipt)
        assert_type(await shop.batch([{"event": "Seen"}]), list[Receipt])
        assert_type(await shop.batch(b"[]"), list[Receipt])
        assert_type(await shop.batch(b"[]", keep_refused=True), list[Receipt])
        assert_type(await shop.dead_letters(), list[DeadLetter])
        assert_type(await shop.replay([1], {"event": "Seen"}), list[Replayed])
        assert_type(shop.stats(), Stats)
        result = await shop.query("SELECT 1 AS one", as_of="2026-01-01T00:00:00Z")
        assert_type(result[0], Row)
        assert_type(result.rows, list[Row])
        assert_type(await shop.snapshots(), list[Snapshot])
        assert_type(await shop.check(), list[Problem])
        await shop.archive(older_than=timedelta(days=7))
        await shop.warm()


async def from_afar() -> None:
    """Stubs know their names at run time only, so everything of theirs is Any."""
    async with Namespace("data", Shop) as namespace:
        await namespace.get("tom").dau(7)[0].dau
    with connect("data", "shop") as shop:
        shop.dau(7)
