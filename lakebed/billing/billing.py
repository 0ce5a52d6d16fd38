"""Billing: usage, price books and invoices. Usage is summed exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from lakebed.billing.invoice import INVOICE, Adjustment, Invoice, Line, Used, adjusted, lines_of, total_of
from lakebed.billing.price_book import PRICE_BOOK, PriceBook, exact, plain, tidy
from lakebed.billing.quotas import Quotas, month_of
from lakebed.clock import Clock, Instant, Moment, from_us, parse_as_of, to_us
from lakebed.definitions.definitions import Definition, Definitions
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT
from lakebed.events.event import Receipt
from lakebed.events.validation import from_call
from lakebed.ingest.ingest import Ingest
from lakebed.interface.delegate import delegate
from lakebed.reports.context import ReportContext
from lakebed.reports.usage import usage

__all__ = ["USAGE", "Billing"]

USAGE = "Usage Tracked"

_ZERO = Decimal(0)
_Sold = tuple[str, str]  # sku and unit
_Version = tuple[str, int]  # name and version of a price book


class Billing:
    """Usage, price books, invoices and quotas of one object. docs/billing.md explains them."""

    def __init__(
        self, definitions: Definitions, context: ReportContext, ingest: Ingest, quotas: Quotas, clock: Clock
    ) -> None:
        self._definitions = definitions
        self._context = context
        self._ingest = ingest
        self._quotas = quotas
        self._clock = clock
        self._issuing = asyncio.Lock()

    async def track_usage(
        self,
        organization_id: str,
        sku: str,
        quantity: Decimal | int | str,
        unit: str,
        *,
        user_id: str | None = None,
        timestamp: Moment | float | None = None,
        message_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Store usage durably, as an event "Usage Tracked". Sent again with the same `message_id`, it counts once.

        Args:
            organization_id: the organisation that used the sku, and pays.
            sku: the product that was used.
            quantity: a Decimal, an int or text, at most 29 digits and 9 decimals; a negative quantity is a correction.
                A float is refused, because its value is not exactly the printed number.
            unit: unit of `quantity`; never converted.
            user_id: the person who used the product.
            timestamp: time of use; by default now. Late usage belongs to the period in which it happened.
            message_id: a retry with the same id stores nothing.
            properties: further properties of the event.

        Raises:
            InvalidBilling: a text is missing, or the quantity is not valid.
            InvalidEvent, DiskFull, LogUnavailable, Backpressure: as for `track`.
        """
        for name, value in (("organization_id", organization_id), ("sku", sku), ("unit", unit)):
            if not isinstance(value, str) or not value:
                raise InvalidBilling(f"{name} is {value!r}", hint="Give a non-empty text")
        number = exact("quantity", quantity)
        own = {"organization_id": organization_id, "sku": sku, "quantity": plain(number), "unit": unit}
        fields = {"event": USAGE, "user_id": user_id, "timestamp": timestamp, "message_id": message_id}
        event = from_call("track", dict(properties or {}) | own, **fields)
        receipt = await self._ingest.event(event)
        if receipt.status == "stored" and receipt.seq is not None:
            happened_us = event.timestamp if isinstance(event.timestamp, int) else None  # validation leaves an int
            await self._quotas.count(organization_id, sku, number, receipt.seq, happened_us)
        return receipt

    async def save_price_book(self, name: str, document: Mapping[str, Any]) -> Definition:
        """Save a price book, or a new version of one. Saved versions never change.

        Raises:
            InvalidBilling: a field cannot be read; the message names the field.
            InvalidDefinition: the name is not valid.
        """
        PriceBook.of(document)
        return await self._definitions.save(PRICE_BOOK, name, msgspec.json.decode(msgspec.json.encode(document)))

    async def price_books(self) -> list[Definition]:
        """The newest version of each price book, by name."""
        return await self._definitions.newest(PRICE_BOOK)

    async def _price_book(self, name: str, version: int | None, as_of_us: int | None) -> tuple[PriceBook, int]:
        definition = await self._definitions.get(PRICE_BOOK, name, version=version, as_of_us=as_of_us)
        if definition is None:
            label = f"{name[:80]!r}" + ("" if version is None else f", version {version}")
            raise InvalidBilling(f"there is no price book {label}", hint="price_books() lists them")
        return PriceBook.of(definition.body), definition.version

    async def invoice(
        self,
        organization_id: str,
        period: str,
        *,
        price_book: str = "default",
        version: int | None = None,
        tz: str = "UTC",
        as_of: Instant | None = None,
        issue: bool = False,
    ) -> Invoice:
        """The invoice of a month: the issued one if it exists; otherwise a draft, or with `issue` a new invoice.

        Usage that arrives after its month was billed becomes an adjustment: that month rated again at its own prices,
        less the amount billed for it. So every unit is billed once, whenever it arrives. If those prices lack a sku,
        the prices of the invoice on which the sku first appears apply, and the adjustment names them.

        Args:
            organization_id: organisation that pays.
            period: a month, such as `2026-01`.
            price_book: name of the price book; `version` is its version, by default the newest.
            tz: IANA name of the time zone of the month.
            as_of: only usage received up to this moment counts; the answer has the same bytes at any later time.
            issue: whether to record the invoice, after the end of the month. A recorded invoice is returned again.

        Raises:
            InvalidBilling: the month is not valid or not over; there is no such book; the book has no price for a used
                sku; or this organisation was billed in another currency or time zone before.
        """
        start, end = month_of(period, tz)
        if not isinstance(organization_id, str) or not organization_id:
            raise InvalidBilling(f"organization_id {organization_id!r} is empty or not text", hint="Give a text")
        if issue and as_of is not None:
            raise InvalidBilling("issue=True and as_of cannot be combined", hint="Leave one of them out")
        async with self._issuing:
            now_us = self._clock.now_us()
            as_of_us = parse_as_of(as_of, now_us)
            issued = await self._issued(organization_id, as_of_us)  # without `as_of`, all: the clock may step back
            recorded = next((invoice for invoice in issued if invoice.period == period), None)
            if recorded is not None:
                return recorded
            if issue and to_us(end) > now_us:
                hint = "Issue it afterwards; without issue=True it is a draft"
                raise InvalidBilling(f"{period} is not over before {end.isoformat()}", hint=hint)
            as_of_us = now_us if as_of_us is None else as_of_us
            book, book_version = await self._price_book(price_book, version, as_of_us if version is None else None)
            _check_goes_with(issued, tz, book.currency)
            lines = lines_of(book, await self._used(organization_id, start, end, as_of_us), period)
            adjustments = await self._adjustments(issued, (price_book, book_version), as_of_us)
            invoice = Invoice(
                organization_id=organization_id,
                period=period,
                start=start.isoformat(),
                end=end.isoformat(),
                tz=tz,
                as_of=from_us(as_of_us).isoformat(),
                price_book=price_book,
                price_book_version=book_version,
                currency=book.currency,
                lines=lines,
                adjustments=tuple(adjustments),
                total=total_of((*lines, *adjustments), book.currency),
                issued=issue,
            )
            if issue:
                await self._definitions.save(INVOICE, invoice.name, msgspec.json.decode(msgspec.json.encode(invoice)))
            return invoice

    async def invoices(self, organization_id: str | None = None) -> list[Invoice]:
        """The issued invoices, of one organisation or all, in the order in which they were issued."""
        return await self._issued(organization_id, None)

    save_quota = delegate(Quotas.save_quota, "_quotas")
    quotas = delegate(Quotas.quotas, "_quotas")
    quota = delegate(Quotas.quota, "_quotas")

    async def _issued(self, organization_id: str | None, as_of_us: int | None) -> list[Invoice]:
        saved = await self._definitions.newest(INVOICE, as_of_us=as_of_us)
        invoices = [msgspec.convert(entry.body, Invoice) for entry in sorted(saved, key=lambda entry: entry.seq)]
        return [
            invoice for invoice in invoices if organization_id is None or invoice.organization_id == organization_id
        ]

    async def _adjustments(self, issued: list[Invoice], current: _Version, as_of_us: int) -> list[Adjustment]:
        """The adjustments for late usage in the months of `issued`. `current` is the price book of the new invoice."""
        adjustments: list[Adjustment] = []
        for earlier in issued:
            billed: dict[_Sold, tuple[Decimal, Decimal]] = {}
            later: dict[_Sold, _Version] = {}
            previous = [line for invoice in issued for line in invoice.adjustments if line.invoice == earlier.name]
            billed_for: list[Line | Adjustment] = [*earlier.lines, *previous]
            for line in billed_for:
                quantity, amount = billed.get((line.sku, line.unit), (_ZERO, _ZERO))
                billed[line.sku, line.unit] = (EXACT.add(quantity, line.quantity), EXACT.add(amount, line.amount))
            for adjustment in previous:
                if adjustment.price_book is not None and adjustment.price_book_version is not None:
                    later[adjustment.sku, adjustment.unit] = (adjustment.price_book, adjustment.price_book_version)
            rated = await self._rated(earlier, later, current, as_of_us)
            adjustments += adjusted(earlier, billed, rated, later)
        return adjustments

    async def _rated(
        self, earlier: Invoice, later: dict[_Sold, _Version], current: _Version, as_of_us: int
    ) -> list[Line]:
        """The lines that `earlier` would have now. `later` has the price book of each sku that its own book lacks.

        Adds `current` to `later` for a new sku, which keeps that version: tiers and packages are over the whole month.
        """
        own = (earlier.price_book, earlier.price_book_version)
        book, _ = await self._price_book(*own, None)
        start, end = month_of(earlier.period, earlier.tz)
        used: dict[_Version, list[Used]] = {}
        for item in await self._used(earlier.organization_id, start, end, as_of_us):
            version = own if book.has(item.sku, item.unit) else later.setdefault((item.sku, item.unit), current)
            used.setdefault(version, []).append(item)
        lines: list[Line] = []
        for version, items in used.items():
            book, _ = await self._price_book(*version, None)
            lines += lines_of(book, items, earlier.period)
        return lines

    async def _used(self, organization_id: str, start: datetime, end: datetime, as_of_us: int) -> list[Used]:
        result = await usage(
            self._context, organization_id=organization_id, grain=None, start=start, end=end, as_of=from_us(as_of_us)
        )
        return [Used(row.sku, row.unit, tidy(row.quantity)) for row in result]


def _check_goes_with(issued: list[Invoice], tz: str, currency: str) -> None:
    """Raise InvalidBilling if an issued invoice has another zone (usage would be billed twice) or another currency."""
    for invoice in issued:
        if invoice.tz != tz or invoice.currency != currency:
            raise InvalidBilling(
                f"{invoice.organization_id} was billed in {invoice.currency} by months in {invoice.tz}, "
                f"not {currency} and {tz}",
                hint="Use the same currency and time zone, or bill another organization_id from now on",
            )
