"""Money: decimals, exact except in one place, where a line is rounded to the digits of its currency."""

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
    """The number of decimals of a currency, by ISO 4217. Raises InvalidBilling if it is not a code."""
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        raise InvalidBilling(f"currency is {str(currency)[:40]!r}", hint="Use a code of ISO 4217, such as EUR")
    return _MINOR.get(currency, 2)


def rounded(amount: Decimal, currency: str) -> Decimal:
    """`amount` in whole minor units; a half is rounded away from zero, as is usual on invoices."""
    return amount.quantize(Decimal(1).scaleb(-digits_of(currency)), context=_ROUNDING)


def exact(name: str, value: Any, *, digits: int = 29, decimals: int = 9) -> Decimal:
    """A quantity or price as it was written: a Decimal, a whole number, or text.

    Raises:
        InvalidBilling: it is a float, is not a finite number, or has too many digits.
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
        raise InvalidBilling(f"{name} is {str(value)[:60]!r}", hint=hint)
    return number


def tidy(number: Decimal) -> Decimal:
    """The same number without zeros behind its decimals, and without an exponent: 10, not 10.00 or 1E+1."""
    short = number.normalize(EXACT)
    return short.quantize(Decimal(1), context=EXACT) if int(short.as_tuple().exponent) > 0 else short


def plain(number: Decimal) -> str:
    """A decimal as text without an exponent."""
    return format(number, "f")
