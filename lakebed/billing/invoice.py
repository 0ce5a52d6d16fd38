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

INVOICE = "invoice"  # the kind of its documents
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
    """Usage that arrived after its period was billed: the period rated again, less the amount billed for it.

    Attributes:
        period: the earlier period.
        invoice: the name of the invoice that was issued for it.
        quantity: difference to the billed quantity; negative if less.
        amount: difference in money.
        price_book: with `price_book_version`, the source of the price if the book of the earlier invoice has none.
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
    """An invoice. It names everything that it was computed from, so that it can be computed again.

    Attributes:
        organization_id: the payer.
        period: `2026-01`, a month of the calendar of `tz`.
        start: the period's first instant, ISO 8601; `end` is the one after its last.
        as_of: usage received by then is included. The same `as_of` gives the same bytes again.
        price_book: its name, with `price_book_version`.
        lines: by sku and unit.
        adjustments: for earlier periods.
        total: of lines and adjustments.
        issued: whether it was recorded; a draft is not.
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
        """The name of its document."""
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
    """Usage at the prices of `book`, each line rounded. A sku without a price whose usage is zero has no line.

    Args:
        book: all prices.
        used: by sku and unit.
        period: named by the error.

    Raises:
        InvalidBilling: a used sku has no price, or not in that unit. No usage is left out silently.
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
    """The sum of lines, which are rounded already."""
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
        billed: quantity and amount by sku and unit, on that invoice and later ones.
        now: the lines that it would have now.
        later: the price book and version of each sku that the book of `earlier` has no price for.
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
