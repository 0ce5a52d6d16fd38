"""The events of the drills, and the query whose answer shows whether any event was lost or doubled."""

from datetime import UTC, datetime

from lakebed import Analytics, Rollup

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

WHOLE = "SELECT count(*), count(DISTINCT seq), coalesce(max(seq) + 1, 0), sum(revenue) FROM events"


class Shop(Analytics):
    revenue = Rollup("revenue", by=["plan"], measures={"total": "sum(revenue)"}, grain="day")


def order(number):
    return {
        "event": ("order", "view")[number % 2],
        "userId": f"u{number % 7}",
        "messageId": f"m{number}",
        "properties": {"revenue": number / 2, "plan": ("free", "pro")[number % 2]},
    }


async def fill(shop, start, end):
    """Track the orders [start, end)."""
    return await shop.batch([order(number) for number in range(start, end)])


def whole(count):
    """The answer to WHOLE when exactly the first `count` orders are there, once each."""
    return (count, count, count, sum(range(count)) / 2 if count else None)


async def holds(shop, count, **options):
    """Whether exactly the first `count` orders are there, once each."""
    return tuple((await shop.query(WHOLE, **options))[0]) == whole(count)


async def move_all(shop, clock):
    """Archive everything, and prune the log."""
    await shop.archive()
    clock.advance(5000)  # the log keeps an hour for the live counters
    return await shop.rollup()
