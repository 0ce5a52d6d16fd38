"""The shop that tests of Analytics open, and what they fill it with."""

from datetime import UTC, datetime

from lakebed import Analytics, Rollup

START = datetime(2026, 1, 15, 12, tzinfo=UTC)  # a Thursday


class Shop(Analytics):
    revenue = Rollup(
        "revenue", by=["plan"], measures={"total": "sum(revenue)", "people": "distinct(person_id)"}, grain="day"
    )


def maker(root, clock):
    """What opens shops in `root`: `make()`, or `make(SomeShop, some_setting=…)`."""

    def make(kind=Shop, **options):
        defaults = {"headroom_bytes": 0, "segment_events": 10, "promote": {"revenue": float}, "clock": clock}
        return kind("shop", root=root, **defaults | options)

    return make


async def fill(shop, count, *, first=0, at=None, **fields):
    """`count` orders of seven people."""
    items = [
        {
            "event": ("order", "view")[number % 2],
            "userId": f"u{number % 7}",
            "messageId": f"m{number}",
            "properties": {"revenue": number / 2, "plan": ("free", "pro")[number % 2]},
            **fields,
        }
        for number in range(first, first + count)
    ]
    for item in items if at is not None else []:
        item["timestamp"] = at.isoformat()
    return await shop.batch(items)
