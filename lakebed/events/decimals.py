"""Exact arithmetic with decimals: an operation raises an error if it would have to round."""

from __future__ import annotations

from decimal import Context, DivisionByZero, Inexact, InvalidOperation, Overflow

__all__ = ["EXACT", "MAX_DIGITS"]

MAX_DIGITS = 100
EXACT = Context(prec=MAX_DIGITS, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Arithmetic that raises rather than rounds. The sum of all usage that can be stored has 57 digits, prices have 32, and
packages of the smallest size 3 more: no product needs 100."""
