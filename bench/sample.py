"""Events to measure with: two real samples, scaled up by a seeded generator that keeps their shape.

A batch is a JSON array as Segment's SDKs send it. The same seed and number give the same bytes, in any process.
"""

from __future__ import annotations

import csv
import gzip
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

HERE = Path(__file__).parent
RETAIL = HERE.parent / "examples" / "data" / "online_retail_2010-12.csv.gz"
CLICKS = HERE / "data" / "usagov_clicks_2012.jsonl.gz"
BATCH = 1_000
SEED = 7
CLONES = 50  # people who behave as one real customer does: 47,000 in all
PAGES, IDENTIFIES = 0.73, 0.09  # for each order line: 55 % lines, 40 % pages, 5 % identifies
LATE = 0.01  # events that a client held back, up to a day
_PRO = 0.25
_MOST_LINES = 1_000  # of one order
_MS = 1_000
_DAY_MS = 86_400_000
_T = TypeVar("_T")


class Invoice(NamedTuple):
    """One real order: who, what happened, where, and how many of what."""

    customer: str
    name: str
    country: str
    quantities: tuple[int, ...]


class Product(NamedTuple):
    """What was sold in one real line: the JSON of it, and its price."""

    json: str
    price: float


class Page(NamedTuple):
    """One real click: the event's JSON after its ids, and whether the visitor was known."""

    known: bool
    name: str
    properties: str
    context: str


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


@cache
def invoices() -> tuple[list[Invoice], list[Product]]:
    """The orders and products of the retail sample."""
    with gzip.open(RETAIL, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    orders = []
    for number, group in groupby(rows, key=lambda row: row["InvoiceNo"]):
        lines = list(group)
        name = "Order Cancelled" if number.startswith("C") else "Order Completed"
        quantities = tuple(int(line["Quantity"]) for line in lines)
        orders.append(Invoice(lines[0]["CustomerID"].removesuffix(".0"), name, lines[0]["Country"], quantities))
    return orders, [_product(row) for row in rows]


def _product(row: dict[str, str]) -> Product:
    json = f'"sku":"{row["StockCode"]}","description":{_text(row["Description"])},"unit_price":{row["UnitPrice"]}'
    return Product(json, float(row["UnitPrice"]))


@cache
def pages() -> list[Page]:
    """The page views of the click sample."""
    views = []
    for line in gzip.decompress(CLICKS.read_bytes()).splitlines():
        click = msgspec.json.decode(line)
        name = urlsplit(click["u"]).hostname or "unknown"
        context = {
            "library": {"name": "analytics.js", "version": "next-1.81.0"},
            "userAgent": click["a"],
            "locale": (click["al"] or "en").split(",")[0],
            "timezone": click["tz"] or "UTC",
        }
        properties = {"url": click["u"][:500], "referrer": click["r"], "country": click["c"]}
        views.append(Page(click["nk"] == 1, _text(name[:200]), _text(properties), _text(context)))
    return views


@cache
def people() -> list[tuple[str, str]]:
    """(user id, anonymous id) of everybody who visits, as often as their real model ordered."""
    rng = random.Random(SEED)
    customers = [order.customer for order in invoices()[0] if order.customer]
    known = {}
    for customer in sorted(set(customers)):
        for clone in range(CLONES):
            known[customer, clone] = (f"{customer}-{clone}", str(uuid.UUID(int=rng.getrandbits(128))))
    return [known[customer, clone] for customer in customers for clone in range(CLONES)]


class Source:
    """What one batch draws from: chance, times and message ids.

    Args:
        at_us: the newest time; most lie within `span_us` before it.
    """

    def __init__(self, number: int, count: int, at_us: int, span_us: int) -> None:
        self.rng = random.Random(f"{SEED}/{number}")
        self.random = self.rng.random
        self._last_ms, self._span_ms = at_us // _MS, span_us // _MS
        # Drawn at once: an id for each event, and for those of the last order that do not fit in any more.
        self._digits = self.rng.randbytes(16 * (count + _MOST_LINES)).hex()
        self._ids = 0

    def time(self) -> str:
        """The next time, as the SDKs write it."""
        ms = self._last_ms - int(self.random() * (_DAY_MS if self.random() < LATE else self._span_ms))
        return f"{_second(ms // 1_000)}.{ms % 1_000:03d}Z"

    def id(self) -> str:
        """The next message id: a random UUID, as the SDKs make it."""
        at = self._ids = self._ids + 32
        digits = self._digits
        last = f"a{digits[at - 15 : at - 12]}-{digits[at - 12 : at]}"
        return f"{digits[at - 32 : at - 24]}-{digits[at - 24 : at - 20]}-4{digits[at - 19 : at - 16]}-{last}"

    def choose(self, among: list[_T]) -> _T:
        """One of them."""
        return among[int(self.random() * len(among))]

    def about(self, mean: float) -> int:
        """A whole number whose mean that is."""
        return int(mean + self.random())


@lru_cache(1 << 16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


NOW_US = 1_767_225_600_000_000  # 2026-01-01
_SERVER = '{"library":{"name":"analytics-python","version":"2.4.0"}}'


def batch(number: int, count: int = BATCH, *, at_us: int = NOW_US, span_us: int = 60_000_000) -> bytes:
    """Batch `number` of the stream: a JSON array of `count` events.

    Args:
        at_us: the time of its newest event, microseconds.
        span_us: how far back all but the late ones lie.
    """
    source, events = Source(number, count, at_us, span_us), []
    while len(events) < count:
        lines = list(_order(source))[: count - len(events)]
        events += lines
        events += [_page(source) for _ in range(min(source.about(PAGES * len(lines)), count - len(events)))]
        events += [_identify(source) for _ in range(min(source.about(IDENTIFIES * len(lines)), count - len(events)))]
    return f"[{','.join(events)}]".encode()


def batches(events: int, first: int = 0) -> list[bytes]:
    """`events` in batches of 1,000, from batch `first` on; at least one batch."""
    return [batch(first + number) for number in range(max(1, events // BATCH))]


def spread(events: int, start_us: int, days: float, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """Batches of 1,000 over the `days` from `start_us` on, each with the time of its newest event."""
    amount = max(1, events // BATCH)
    step = round(days * _DAY_MS * _MS / amount)
    for number in range(amount):
        at_us = start_us + step * (number + 1)
        yield at_us, batch(first + number, at_us=at_us, span_us=step)


def _order(source: Source) -> Iterator[str]:
    orders, products = invoices()
    order = source.choose(orders)
    invoice, at = source.rng.randrange(500_000, 10_000_000), source.time()
    who = f'"userId":"{order.customer}-{source.rng.randrange(CLONES)}"'
    if not order.customer:
        who = f'"userId":null,"anonymousId":"invoice:{invoice}"'
    for quantity in order.quantities[:_MOST_LINES]:
        product = source.choose(products)
        yield (
            f'{{"type":"track","event":"{order.name}",{who},"messageId":"{source.id()}","timestamp":"{at}",'
            f'"properties":{{"invoice":"{invoice}",{product.json},"quantity":{quantity},'
            f'"revenue":{quantity * product.price:.2f},"country":"{order.country}"}},"context":{_SERVER}}}'
        )


def _page(source: Source) -> str:
    page, context = source.choose(pages()), source.choose(pages()).context
    user, anonymous = source.choose(people())
    who = f'"{user}"' if page.known else "null"
    return (
        f'{{"type":"page","name":{page.name},"userId":{who},"anonymousId":"{anonymous}","messageId":"{source.id()}",'
        f'"timestamp":"{source.time()}","properties":{page.properties},"context":{context}}}'
    )


def _identify(source: Source) -> str:
    user, anonymous = source.choose(people())
    plan = "pro" if source.random() < _PRO else "free"
    return (
        f'{{"type":"identify","userId":"{user}","anonymousId":"{anonymous}","messageId":"{source.id()}",'
        f'"timestamp":"{source.time()}","traits":{{"plan":"{plan}"}},"context":{_SERVER}}}'
    )
