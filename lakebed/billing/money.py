"""Money: decimals, exact until the one place where a line is rounded to what its currency has."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT, MAX_DIGITS

__all__ = ["digits_of", "exact", "plain", "rounded", "tidy"]

_ROUNDING = Context(prec=MAX_DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
# ISO 4217, where it is not 2.
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_MINOR = dict.fromkeys(_NONE.split(), 0) | dict.fromkeys(_THREE.split(), 3)


def digits_of(currency: str) -> int:
    """How many decimals a currency has, by ISO 4217. Raises InvalidBilling for what is no code."""
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        raise InvalidBilling(f"currency is {str(currency)[:40]!r}", hint="Use a code of ISO 4217, such as EUR")
    return _MINOR.get(currency, 2)


def rounded(amount: Decimal, currency: str) -> Decimal:
    """`amount` in whole minor units; a half goes away from zero, as on invoices people do it by hand."""
    return amount.quantize(Decimal(1).scaleb(-digits_of(currency)), context=_ROUNDING)


def exact(what: str, value: Any, *, digits: int = 29, decimals: int = 9) -> Decimal:
    """A quantity or price as it was written: a Decimal, a whole number, or text.

    Raises:
        InvalidBilling: it is a float, which is not what was written; no finite number; or has too many digits.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        hint = "Give a Decimal, an int, or text such as '0.1': a float is not exactly what it prints"
        raise InvalidBilling(f"{what} is {value!r}", hint=hint, value=value)
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InvalidBilling(f"{what} is {str(value)[:40]!r}, which is no number", hint="Write it as '12.5'")
    number = tidy(number)
    if -int(number.as_tuple().exponent) > decimals or number.adjusted() >= digits:
        hint = f"At most {digits} digits before the point and {decimals} after it are kept"
        raise InvalidBilling(f"{what} is {str(value)[:60]!r}", hint=hint)
    return number


def tidy(number: Decimal) -> Decimal:
    """The same number without zeros behind its decimals, and without an exponent: 10, not 10.00 or 1E+1."""
    short = number.normalize(EXACT)
    return short.quantize(Decimal(1), context=EXACT) if int(short.as_tuple().exponent) > 0 else short


def plain(number: Decimal) -> str:
    """A decimal without an exponent, as JSON and people have it."""
    return format(number, "f")
