"""Invoices: what an organisation used in a period, at the prices of one version of a book, and what came late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape

import msgspec

from lakebed.billing.money import plain, rounded, tidy
from lakebed.billing.price_book import PriceBook
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT

__all__ = ["INVOICE", "Adjustment", "Invoice", "Line", "Used", "adjusted", "lines_of", "total_of"]

INVOICE = "invoice"  # the kind of its definitions
_ZERO = Decimal(0)


class Used(msgspec.Struct, frozen=True, order=True):
    """Usage of one sku in one unit over a period."""

    sku: str
    unit: str
    quantity: Decimal


class Line(msgspec.Struct, frozen=True):
    """What one sku costs; `amount` is rounded to the currency's minor unit."""

    sku: str
    unit: str
    quantity: Decimal
    amount: Decimal


class Adjustment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Usage that came after its period had been billed: the period rated anew, less what was billed for it.

    Attributes:
        period: the earlier one.
        invoice: the name of the invoice that was issued for it.
        quantity: how much more, or with a minus less, than was billed.
        amount: the same in money.
        price_book: with `price_book_version`, whose price it is, where that of the earlier invoice had none.
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
    """An invoice. Everything that it was computed from is on it, so that it can be computed again.

    Attributes:
        organization_id: who pays.
        period: `2026-01`, a month of the calendar of `tz`.
        start: the period's first instant, ISO 8601; `end` is the one after its last.
        as_of: what had been received by then is on it. Asking again as of then gives the same bytes.
        price_book: its name, with `price_book_version`.
        lines: by sku and unit.
        adjustments: of earlier periods.
        total: of both.
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
        """What it is recorded as."""
        return f"{self.period} {self.organization_id}"

    def __str__(self) -> str:
        title = f"{'Invoice' if self.issued else 'Draft'} {self.period} for {self.organization_id}"
        rows = [(f"{one.sku}, {plain(one.quantity)} {one.unit}", plain(one.amount)) for one in self.lines]
        for one in self.adjustments:
            priced = "" if one.price_book is None else f", by {one.price_book}, version {one.price_book_version}"
            rows.append(
                (f"{one.sku}, {plain(one.quantity)} {one.unit}, late for {one.period}{priced}", plain(one.amount))
            )
        rows.append(("total", f"{plain(self.total)} {self.currency}"))
        left, right = (max(len(row[at]) for row in rows) for at in (0, 1))
        body = "\n".join(f"  {text:<{left}}  {amount:>{right}}" for text, amount in rows)
        return f"{title}\n{body}\n  {self.price_book}, version {self.price_book_version}; as of {self.as_of}"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def lines_of(book: PriceBook, used: Sequence[Used], period: str = "") -> tuple[Line, ...]:
    """Usage at the prices of `book`, each line rounded. What has no price and was all taken back has no line.

    Args:
        book: all prices.
        used: by sku and unit.
        period: named by the error.

    Raises:
        InvalidBilling: something is used that has no price, or not in that unit. Nothing is given away unseen.
    """
    missing = [one for one in used if one.quantity and not book.has(one.sku, one.unit)]
    if missing:
        names = ", ".join(f"{one.sku} ({one.unit})" for one in missing)
        when = f", used in {period}" if period else ""
        raise InvalidBilling(
            f"the price book has no price for {names}{when}",
            hint="Save a version that has them, or says what is free: amount 0; or take them back",
        )
    return tuple(
        Line(one.sku, one.unit, one.quantity, rounded(book.prices[one.sku].cost(one.quantity), book.currency))
        for one in sorted(used)
        if book.has(one.sku, one.unit)
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
    """What lies between `billed`, quantity and amount by sku and unit, and the period rated `now`.

    Args:
        earlier: the invoice of the period.
        billed: on it and since.
        now: the lines that it would have.
        later: the price book, and its version, of what is not priced by that of `earlier`.
    """
    found = []
    lines = {(one.sku, one.unit): one for one in now}
    for sku, unit in sorted(lines.keys() | billed.keys()):
        quantity, amount = billed.get((sku, unit), (_ZERO, _ZERO))
        line = lines.get((sku, unit), Line(sku, unit, _ZERO, _ZERO))
        if line.quantity != quantity or line.amount != amount:
            found.append(
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
    return found
