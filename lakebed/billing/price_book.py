"""Price books: what a unit of each sku costs, in six models."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from lakebed.billing.money import digits_of, exact, plain
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT

__all__ = ["PRICE_BOOK", "Price", "PriceBook", "Tier"]

PRICE_BOOK = "price_book"  # the kind of its definitions
Model = Literal["flat", "per_unit", "tiered", "volume", "package"]
_ZERO = Decimal(0)
_MODELS = ("flat", "per_unit", "tiered", "volume", "package")
_FIELDS = {"model", "amount", "tiers", "per", "free", "minimum", "unit"}


class Tier(msgspec.Struct, frozen=True):
    """A step of prices, for units up to `up_to` (None: all others), included."""

    up_to: Decimal | None
    amount: Decimal
    flat: Decimal = _ZERO


class Price(msgspec.Struct, frozen=True):
    """What the usage of one sku in one period costs.

    Attributes:
        model: "flat": `amount`, if there was any usage. "per_unit": `amount` for each unit. "tiered": each unit by the
            tier that it lies in, and the `flat` fee of each tier that is reached. "volume": all units by the tier that
            the last one lies in. "package": `amount` for each `per` units, begun ones whole.
        amount: in the currency of the book.
        tiers: rising, the last without `up_to`.
        per: units of a package.
        free: units that cost nothing; the models see what is beyond.
        minimum: what any usage costs at least.
        unit: if given, usage in another unit is not priced.
    """

    model: Model
    amount: Decimal = _ZERO
    tiers: tuple[Tier, ...] = ()
    per: Decimal = Decimal(1)
    free: Decimal = _ZERO
    minimum: Decimal = _ZERO
    unit: str | None = None

    def cost(self, quantity: Decimal) -> Decimal:
        """What `quantity` costs, exactly. Corrections that exceed the usage leave nothing to pay, not a credit."""
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
        currency: of all amounts, an ISO 4217 code.
        prices: by sku.
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
            raise InvalidBilling("a price book has a currency and prices", hint='{"currency": "EUR", "prices": {…}}')
        digits_of(document["currency"])
        prices = document["prices"]
        if not isinstance(prices, Mapping) or not prices or not all(isinstance(sku, str) and sku for sku in prices):
            raise InvalidBilling("prices is no object of skus", hint='"prices": {"calls": {"model": "flat", …}}')
        return cls(document["currency"], {sku: _price(f"prices.{sku}", one) for sku, one in prices.items()})

    def has(self, sku: str, unit: str) -> bool:
        """Whether usage of `sku` in `unit` has a price."""
        return sku in self.prices and self.prices[sku].unit in (None, unit)


def _price(at: str, given: Any) -> Price:
    if not isinstance(given, Mapping):
        raise InvalidBilling(f"{at} is no object", hint='{"model": "per_unit", "amount": "0.002"}')
    if unknown := sorted(set(given) - _FIELDS):
        raise InvalidBilling(f"{at} has no field {unknown[0][:40]!r}", hint=f"There are {', '.join(sorted(_FIELDS))}")
    model = given.get("model")
    if model not in _MODELS:
        raise InvalidBilling(f"{at}.model is {str(model)[:40]!r}", hint=f"Use one of {', '.join(_MODELS)}")
    unit = given.get("unit")
    if unit is not None and not isinstance(unit, str):
        raise InvalidBilling(f"{at}.unit is {unit!r}", hint="Name the unit that usage is tracked in")
    needs_tiers = model in ("tiered", "volume")
    if needs_tiers != bool(given.get("tiers")) or needs_tiers == ("amount" in given):
        raise InvalidBilling(
            f"{at}: {model} takes {'tiers' if needs_tiers else 'an amount'}", hint="See docs/billing.md"
        )
    numbers = {name: _amount(f"{at}.{name}", given[name]) for name in ("amount", "free", "minimum") if name in given}
    per = _amount(f"{at}.per", given.get("per", 1))
    if per <= 0:
        raise InvalidBilling(f"{at}.per is {plain(per)}", hint="A package has more than 0 units")
    return Price(model, tiers=_tiers(at, given.get("tiers") or ()), per=per, unit=unit, **numbers)


def _tiers(at: str, given: Any) -> tuple[Tier, ...]:
    if not isinstance(given, list | tuple):
        raise InvalidBilling(f"{at}.tiers is no list", hint='[{"up_to": 1000, "amount": "0.01"}, {"amount": "0.005"}]')
    found: list[Tier] = []
    for number, one in enumerate(given):
        here = f"{at}.tiers[{number}]"
        if not isinstance(one, Mapping) or "amount" not in one or set(one) - {"up_to", "amount", "flat"}:
            raise InvalidBilling(f"{here} is no tier", hint='{"up_to": 1000, "amount": "0.01", "flat": "5"}')
        top = None if one.get("up_to") is None else _amount(f"{here}.up_to", one["up_to"])
        if found and (found[-1].up_to is None or (top is not None and top <= found[-1].up_to)):
            raise InvalidBilling(f"{here}.up_to does not rise", hint="Each tier ends above the one before")
        found.append(Tier(top, _amount(f"{here}.amount", one["amount"]), _amount(f"{here}.flat", one.get("flat", 0))))
    if found and found[-1].up_to is not None:
        raise InvalidBilling(f"{at}.tiers ends at {plain(found[-1].up_to)}", hint="The last tier has no up_to")
    return tuple(found)


def _amount(at: str, value: Any) -> Decimal:
    number = exact(at, value, digits=20, decimals=12)
    if number < 0:
        raise InvalidBilling(f"{at} is {plain(number)}", hint="Give 0 or more")
    return number
