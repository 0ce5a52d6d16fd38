"""Invoices: the usage of an organisation in a period at the prices of one price book version, and late usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape

import msgspec

from lakebed.billing.price_book import PriceBook, plain, rounded, tidy
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT

__all__ = ["INVOICE", "Adjustment", "Invoice", "Line", "Used", "adjusted", "lines_of", "total_of"]

INVOICE = "invoice"  # kind of the documents of invoices
_ZERO = Decimal(0)


class Used(msgspec.Struct, frozen=True, order=True):
    """Usage of one sku in one unit over a period."""

    sku: str
    unit: str
    quantity: Decimal


class Line(msgspec.Struct, frozen=True):
    """The cost of one sku; `amount` is rounded to the currency's minor unit."""

    sku: str
    unit: str
    quantity: Decimal
    amount: Decimal


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An adjustment for usage that arrived after its period was billed: the period rated again, less the billed amount.

    Attributes:
        period: the earlier period, in which the usage happened.
        invoice: name of the invoice that was issued for that period.
        quantity: difference to the billed quantity; negative if the usage is less.
        amount: difference in money.
        price_book: source of the price, with `price_book_version`; None if the earlier invoice's book has a price.
    """

    period: str
    invoice: str
    sku: str
    unit: str
    quantity: Decimal
    amount: Decimal
    price_book: str | None = None
    price_book_version: int | None = None


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice. Names everything from which it was computed, so that it can be computed again.

    Attributes:
        organization_id: organisation that pays.
        period: `2026-01`, a month of the calendar of `tz`.
        start: first instant of the period, ISO 8601; `end` is the first instant after the period.
        as_of: moment up to which received usage is included. The same `as_of` gives the same bytes again.
        price_book: name of the price book; `price_book_version` is its version.
        lines: costs of the period, by sku and unit.
        adjustments: differences for earlier periods.
        total: sum of lines and adjustments.
        issued: whether the invoice was recorded; a draft is not recorded.
    """

    organization_id: str
    period: str
    start: str
    end: str
    tz: str
    as_of: str
    price_book: str
    price_book_version: int
    currency: str
    lines: tuple[Line, ...]
    adjustments: tuple[Adjustment, ...] = ()
    total: Decimal = _ZERO
    issued: bool = False

    @property
    def name(self) -> str:
        """The name of the invoice's document."""
        return f"{self.period} {self.organization_id}"

    def __str__(self) -> str:
        title = f"{'Invoice' if self.issued else 'Draft'} {self.period} for {self.organization_id}"
        rows = [(f"{line.sku}, {plain(line.quantity)} {line.unit}", plain(line.amount)) for line in self.lines]
        for late in self.adjustments:
            book = "" if late.price_book is None else f", by {late.price_book}, version {late.price_book_version}"
            usage = f"{late.sku}, {plain(late.quantity)} {late.unit}, late for {late.period}{book}"
            rows.append((usage, plain(late.amount)))
        rows.append(("total", f"{plain(self.total)} {self.currency}"))
        left, right = (max(len(row[column]) for row in rows) for column in (0, 1))
        body = "\n".join(f"  {text:<{left}}  {amount:>{right}}" for text, amount in rows)
        return f"{title}\n{body}\n  {self.price_book}, version {self.price_book_version}; as of {self.as_of}"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def lines_of(book: PriceBook, used: Sequence[Used], period: str = "") -> tuple[Line, ...]:
    """The cost of usage at the prices of `book`; each line is rounded. A sku with no price and zero usage has no line.

    Args:
        book: the prices.
        used: usage by sku and unit.
        period: period that the error names.

    Raises:
        InvalidBilling: a used sku has no price, or no price in that unit. No usage is left out silently.
    """
    missing = [item for item in used if item.quantity and not book.has(item.sku, item.unit)]
    if missing:
        names = ", ".join(f"{item.sku} ({item.unit})" for item in missing)
        when = f", used in {period}" if period else ""
        raise InvalidBilling(
            f"the price book has no price for {names}{when}",
            hint="Save a version that has them (amount 0 if they are free), or correct the usage",
        )
    return tuple(
        Line(item.sku, item.unit, item.quantity, rounded(book.prices[item.sku].cost(item.quantity), book.currency))
        for item in sorted(used)
        if book.has(item.sku, item.unit)
    )


def total_of(lines: Sequence[Line | Adjustment], currency: str) -> Decimal:
    """The sum of `lines`, whose amounts are rounded already."""
    total = _ZERO
    for line in lines:
        total = EXACT.add(total, line.amount)
    return rounded(total, currency)


def adjusted(
    earlier: Invoice,
    billed: Mapping[tuple[str, str], tuple[Decimal, Decimal]],
    now: Sequence[Line],
    later: Mapping[tuple[str, str], tuple[str, int]],
) -> list[Adjustment]:
    """The differences between the billed and the current lines of a period.

    Args:
        earlier: the invoice of the period.
        billed: quantity and amount by sku and unit, on that invoice and on the adjustments of later invoices.
        now: lines that the invoice of the period would have now.
        later: price book and version for each sku and unit for which the book of `earlier` has no price.
    """
    adjustments = []
    lines = {(line.sku, line.unit): line for line in now}
    for sku, unit in sorted(lines.keys() | billed.keys()):
        quantity, amount = billed.get((sku, unit), (_ZERO, _ZERO))
        line = lines.get((sku, unit), Line(sku, unit, _ZERO, _ZERO))
        if line.quantity != quantity or line.amount != amount:
            adjustments.append(
                Adjustment(
                    earlier.period,
                    earlier.name,
                    sku,
                    unit,
                    tidy(EXACT.subtract(line.quantity, quantity)),
                    EXACT.subtract(line.amount, amount),
                    *later.get((sku, unit), (None, None)),
                )
            )
    return adjustments
