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
from typing import NamedTuple
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
ANONYMOUS = "an"
_MS = 1_000
_DAY_MS = 86_400_000


class Invoice(NamedTuple):
    """One real order: who, where, and how many of what."""

    customer: str
    country: str
    cancels: bool
    quantities: tuple[int, ...]


class Product(NamedTuple):
    """What was sold in one real line."""

    sku: str
    description: str
    price: str


class Page(NamedTuple):
    """One real click: the event's JSON after its ids, and whether the visitor was known."""

    known: bool
    name: bytes
    properties: bytes
    context: bytes


def _text(value: object) -> bytes:
    return msgspec.json.encode(value)


@cache
def invoices() -> tuple[list[Invoice], list[Product]]:
    """The orders and products of the retail sample."""
    with gzip.open(RETAIL, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    orders = []
    for number, found in groupby(rows, key=lambda row: row["InvoiceNo"]):
        lines = list(found)
        customer, country = lines[0]["CustomerID"].removesuffix(".0"), lines[0]["Country"]
        quantities = tuple(int(line["Quantity"]) for line in lines)
        orders.append(Invoice(customer, country, number.startswith("C"), quantities))
    return orders, [Product(row["StockCode"], row["Description"], row["UnitPrice"]) for row in rows]


@cache
def pages() -> list[Page]:
    """The page views of the click sample."""
    found = []
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
        found.append(Page(click["nk"] == 1, _text(name[:200]), _text(properties), _text(context)))
    return found


@cache
def people() -> list[tuple[bytes, bytes]]:
    """(user id, anonymous id) of everybody who visits, as often as their real model ordered."""
    rng = random.Random(SEED)
    customers = [order.customer for order in invoices()[0] if order.customer]
    known = {}
    for customer in sorted(set(customers)):
        for clone in range(CLONES):
            ids = (b'"%s-%d"' % (customer.encode(), clone), b'"%s"' % str(uuid.UUID(int=rng.getrandbits(128))).encode())
            known[customer, clone] = ids
    return [known[customer, clone] for customer in customers for clone in range(CLONES)]


class Clock:
    """Timestamps of one batch: the newest is `at_us`, most lie within `span_us` before it."""

    def __init__(self, rng: random.Random, at_us: int, span_us: int) -> None:
        self._rng = rng
        self._last_ms, self._span_ms = at_us // _MS, span_us // _MS

    def read(self) -> bytes:
        """The next one, as the SDKs write it."""
        back = self._rng.random() * (_DAY_MS if self._rng.random() < LATE else self._span_ms)
        ms = self._last_ms - int(back)
        return b'"%s.%03dZ"' % (_second(ms // 1_000), ms % 1_000)


@lru_cache(1 << 16)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


NOW_US = 1_767_225_600_000_000  # 2026-01-01
_SERVER = b'{"library":{"name":"analytics-python","version":"2.4.0"}}'


def batch(number: int, count: int = BATCH, *, at_us: int = NOW_US, span_us: int = 60_000_000) -> bytes:
    """Batch `number` of the stream: a JSON array of `count` events.

    Args:
        at_us: the time of its newest event, microseconds.
        span_us: how far back all but the late ones lie.
    """
    rng = random.Random(f"{SEED}/{number}")
    clock, events = Clock(rng, at_us, span_us), []
    while len(events) < count:
        lines = list(_order(rng, clock))
        events += lines
        events += (_page(rng, clock) for _ in range(_about(rng, PAGES * len(lines))))
        events += (_identify(rng, clock) for _ in range(_about(rng, IDENTIFIES * len(lines))))
    return b"[" + b",".join(events[:count]) + b"]"


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


def _about(rng: random.Random, mean: float) -> int:
    return int(mean + rng.random())


def _id(rng: random.Random) -> bytes:
    digits = b"%032x" % rng.getrandbits(128)
    return b'"%s-%s-4%s-a%s-%s"' % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])


def _order(rng: random.Random, clock: Clock) -> Iterator[bytes]:
    orders, products = invoices()
    order = orders[int(rng.random() * len(orders))]
    invoice, at = rng.randrange(500_000, 10_000_000), clock.read()
    who = b'"userId":"%s-%d"' % (order.customer.encode(), rng.randrange(CLONES))
    if not order.customer:
        who = b'"userId":null,"anonymousId":"invoice:%d"' % invoice
    name = b"Order Cancelled" if order.cancels else b"Order Completed"
    for quantity in order.quantities:
        product = products[int(rng.random() * len(products))]
        yield (
            b'{"type":"track","event":"%s",%s,"messageId":%s,"timestamp":%s,"properties":{"invoice":"%d","sku":"%s",'
            b'"description":%s,"quantity":%d,"unit_price":%s,"revenue":%.2f,"country":"%s"},"context":%s}'
            % (
                name,
                who,
                _id(rng),
                at,
                invoice,
                product.sku.encode(),
                _text(product.description),
                quantity,
                product.price.encode(),
                quantity * float(product.price),
                order.country.encode(),
                _SERVER,
            )
        )


def _page(rng: random.Random, clock: Clock) -> bytes:
    page, context = rng.choice(pages()), rng.choice(pages()).context
    user, anonymous = rng.choice(people())
    return (
        b'{"type":"page","name":%s,"userId":%s,"anonymousId":%s,"messageId":%s,"timestamp":%s,"properties":%s,"context":%s}'
        % (
            page.name,
            user if page.known else b"null",
            anonymous,
            _id(rng),
            clock.read(),
            page.properties,
            context,
        )
    )


def _identify(rng: random.Random, clock: Clock) -> bytes:
    user, anonymous = rng.choice(people())
    return (
        b'{"type":"identify","userId":%s,"anonymousId":%s,"messageId":%s,"timestamp":%s,"traits":{"plan":"%s"},'
        b'"context":%s}'
        % (user, anonymous, _id(rng), clock.read(), rng.choice((b"free", b"free", b"free", b"pro")), _SERVER)
    )
