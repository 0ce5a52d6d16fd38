"""Price books: the price of each sku, by one of five models; and functions for money.

Amounts are decimals and exact, except that each line of an invoice is rounded to the digits of its currency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT, MAX_DIGITS

__all__ = ["PRICE_BOOK", "PriceBook", "exact", "plain", "rounded", "tidy"]

_ROUNDING = Context(prec=MAX_DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
# Currencies of ISO 4217 whose number of decimals is not 2.
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_MINOR = dict.fromkeys(_NONE.split(), 0) | dict.fromkeys(_THREE.split(), 3)


def digits_of(currency: str) -> int:
    """The number of decimals of a currency, by ISO 4217. Raises InvalidBilling if `currency` is not a code."""
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        raise InvalidBilling(f"currency {str(currency)[:40]!r} is not a code of ISO 4217", hint="Use one such as EUR")
    return _MINOR.get(currency, 2)


def rounded(amount: Decimal, currency: str) -> Decimal:
    """`amount` in whole minor units; a half is rounded away from zero, as is usual on invoices."""
    return amount.quantize(Decimal(1).scaleb(-digits_of(currency)), context=_ROUNDING)


def exact(name: str, value: Any, *, digits: int = 29, decimals: int = 9) -> Decimal:
    """The exact value of a quantity or price that is given as a Decimal, an int or text.

    Raises:
        InvalidBilling: `value` is a float, is not a finite number, or has too many digits.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        hint = "Give a Decimal, an int, or text such as '0.1': a float is not exactly what it prints"
        raise InvalidBilling(f"{name} is {value!r}", hint=hint, value=value)
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InvalidBilling(f"{name} is {str(value)[:40]!r}, which is not a number", hint="Write it as '12.5'")
    number = tidy(number)
    if -int(number.as_tuple().exponent) > decimals or number.adjusted() >= digits:
        hint = f"At most {digits} digits before the point and {decimals} after it are kept"
        raise InvalidBilling(f"{name} is {str(value)[:60]!r}: too many digits", hint=hint)
    return number


def tidy(number: Decimal) -> Decimal:
    """An equal number without trailing zeros after the point, and without an exponent: 10, not 10.00 or 1E+1."""
    short = number.normalize(EXACT)
    return short.quantize(Decimal(1), context=EXACT) if int(short.as_tuple().exponent) > 0 else short


def plain(number: Decimal) -> str:
    """A decimal as text without an exponent."""
    return format(number, "f")


PRICE_BOOK = "price_book"  # kind of the documents of price books
Model = Literal["flat", "per_unit", "tiered", "volume", "package"]
_ZERO = Decimal(0)
_MODELS = ("flat", "per_unit", "tiered", "volume", "package")
_FIELDS = {"model", "amount", "tiers", "per", "free", "minimum", "unit"}


class Tier(msgspec.Struct, frozen=True):
    """A price tier, for units up to and including `up_to` (None: all further units)."""

    up_to: Decimal | None
    amount: Decimal
    flat: Decimal = _ZERO


class Price(msgspec.Struct, frozen=True):
    """The price of one sku in one period.

    Attributes:
        model: "flat": `amount`, if there was any usage. "per_unit": `amount` for each unit. "tiered": each unit costs
            the amount of its own tier, and each reached tier its `flat` fee. "volume": all units are in the tier of the
            last unit. "package": `amount` for each `per` units, the last package in full.
        amount: price in the currency of the book.
        tiers: price tiers, ascending; the last one has no `up_to`.
        per: number of units in a package.
        free: number of units that cost nothing; the model applies to the rest.
        minimum: lowest cost of any usage.
        unit: if given, usage in another unit has no price.
    """

    model: Model
    amount: Decimal = _ZERO
    tiers: tuple[Tier, ...] = ()
    per: Decimal = Decimal(1)
    free: Decimal = _ZERO
    minimum: Decimal = _ZERO
    unit: str | None = None

    def cost(self, quantity: Decimal) -> Decimal:
        """The exact cost of `quantity`. Corrections beyond the usage cost nothing and give no credit."""
        if quantity <= 0:
            return _ZERO
        beyond = max(_ZERO, EXACT.subtract(quantity, self.free))
        return max(self._beyond(beyond), self.minimum)

    def _beyond(self, quantity: Decimal) -> Decimal:
        if self.model == "flat":
            return self.amount
        if self.model == "per_unit":
            return EXACT.multiply(quantity, self.amount)
        if self.model == "package":
            begun, rest = EXACT.divmod(quantity, self.per)
            packages = EXACT.add(begun, 1 if rest else 0)
            return EXACT.multiply(packages, self.amount)
        if quantity == 0:
            return _ZERO
        if self.model == "volume":
            tier = next(tier for tier in self.tiers if tier.up_to is None or quantity <= tier.up_to)
            return EXACT.add(EXACT.multiply(quantity, tier.amount), tier.flat)
        cost = below = _ZERO
        for tier in self.tiers:
            top = quantity if tier.up_to is None else min(quantity, tier.up_to)
            cost = EXACT.add(cost, EXACT.add(EXACT.multiply(EXACT.subtract(top, below), tier.amount), tier.flat))
            below = top
            if top == quantity:
                break
        return cost


class PriceBook(msgspec.Struct, frozen=True):
    """Prices by sku.

    Attributes:
        currency: ISO 4217 code of the currency of all amounts.
        prices: prices by sku.
    """

    currency: str
    prices: Mapping[str, Price]

    @classmethod
    def of(cls, document: Any) -> PriceBook:
        """The book of a document: `{"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.002"}}}`.

        Raises:
            InvalidBilling: names the field that cannot be read.
        """
        if not isinstance(document, Mapping) or set(document) != {"currency", "prices"}:
            raise InvalidBilling("a price book must have currency and prices", hint='{"currency": "EUR", "prices": …}')
        digits_of(document["currency"])
        prices = document["prices"]
        if not isinstance(prices, Mapping) or not prices or not all(isinstance(sku, str) and sku for sku in prices):
            raise InvalidBilling("prices is not an object of skus", hint='"prices": {"calls": {"model": "flat", …}}')
        return cls(document["currency"], {sku: _price(f"prices.{sku}", price) for sku, price in prices.items()})

    def has(self, sku: str, unit: str) -> bool:
        """Whether usage of `sku` in `unit` has a price."""
        return sku in self.prices and self.prices[sku].unit in (None, unit)


def _price(path: str, value: Any) -> Price:
    if not isinstance(value, Mapping):
        raise InvalidBilling(f"{path} is not an object", hint='{"model": "per_unit", "amount": "0.002"}')
    if unknown := sorted(set(value) - _FIELDS):
        raise InvalidBilling(f"{path}: {unknown[0][:40]!r} is not a field", hint=f"Use {', '.join(sorted(_FIELDS))}")
    model = value.get("model")
    if model not in _MODELS:
        raise InvalidBilling(f"{path}.model {str(model)[:40]!r} is not known", hint=f"Use one of {', '.join(_MODELS)}")
    unit = value.get("unit")
    if unit is not None and not isinstance(unit, str):
        raise InvalidBilling(f"{path}.unit {unit!r} is not text", hint="Name the unit that usage is tracked in")
    needs_tiers = model in ("tiered", "volume")
    if needs_tiers != bool(value.get("tiers")) or needs_tiers == ("amount" in value):
        fields = "`tiers` and no `amount`" if needs_tiers else "`amount` and no `tiers`"
        raise InvalidBilling(f"{path}: model {model} must have {fields}", hint="See docs/billing.md")
    numbers = {name: _amount(f"{path}.{name}", value[name]) for name in ("amount", "free", "minimum") if name in value}
    per = _amount(f"{path}.per", value.get("per", 1))
    if per <= 0:
        raise InvalidBilling(f"{path}.per {plain(per)} is not above 0", hint="Give a number above 0")
    return Price(model, tiers=_tiers(path, value.get("tiers") or ()), per=per, unit=unit, **numbers)


def _tiers(path: str, value: Any) -> tuple[Tier, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidBilling(
            f"{path}.tiers is not a list", hint='[{"up_to": 1000, "amount": "0.01"}, {"amount": "0.005"}]'
        )
    tiers: list[Tier] = []
    for number, item in enumerate(value):
        item_path = f"{path}.tiers[{number}]"
        if not isinstance(item, Mapping) or "amount" not in item or set(item) - {"up_to", "amount", "flat"}:
            raise InvalidBilling(f"{item_path} is not a tier", hint='{"up_to": 1000, "amount": "0.01", "flat": "5"}')
        top = None if item.get("up_to") is None else _amount(f"{item_path}.up_to", item["up_to"])
        if tiers and (tiers[-1].up_to is None or (top is not None and top <= tiers[-1].up_to)):
            raise InvalidBilling(f"{item_path}.up_to does not ascend", hint="Each tier must end above the one before")
        amount, flat = _amount(f"{item_path}.amount", item["amount"]), _amount(f"{item_path}.flat", item.get("flat", 0))
        tiers.append(Tier(top, amount, flat))
    if tiers and tiers[-1].up_to is not None:
        raise InvalidBilling(f"the last of {path}.tiers has up_to {plain(tiers[-1].up_to)}", hint="Leave its up_to out")
    return tuple(tiers)


def _amount(path: str, value: Any) -> Decimal:
    number = exact(path, value, digits=20, decimals=12)
    if number < 0:
        raise InvalidBilling(f"{path} {plain(number)} is below 0", hint="Give 0 or more")
    return number
