"""Formula: arithmetic over series, `A / B * 100`, as SQL."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence

from lakebed.errors import QueryRefused

__all__ = ["LETTERS", "formula_sql"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_LENGTH = 200
_SIGNS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}


def formula_sql(text: str, columns: Sequence[str]) -> str:
    """SQL of a formula, a DOUBLE. A is the first of `columns`, B the second; a division by 0 is NULL.

    Raises:
        QueryRefused: `text` has anything but numbers, these letters, + - * / and parentheses.
    """
    letters = LETTERS[: len(columns)]
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_LENGTH:
        raise _refused(text, letters)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refused(text, letters) from None
    try:
        return _sql(tree, dict(zip(letters, columns, strict=True)))
    except LookupError:
        raise _refused(text, letters) from None


def _sql(node: ast.expr, columns: Mapping[str, str]) -> str:
    """The SQL of a part of a formula. Raises LookupError: formulas have no such part."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            return f"CAST({float(value)!r} AS DOUBLE)"
        case ast.Name(id=name):
            return f"CAST({columns[name]} AS DOUBLE)"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{_sql(operand, columns)})"
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return f"({_sql(left, columns)} / nullif({_sql(right, columns)}, 0))"
        case ast.BinOp(left=left, op=sign, right=right):
            return f"({_sql(left, columns)} {_SIGNS[type(sign)]} {_sql(right, columns)})"
    raise LookupError


def _refused(text: object, letters: str) -> QueryRefused:
    series = f"{letters[0]} to {letters[-1]}" if len(letters) > 1 else letters
    hint = f"Write numbers, {series} for the series, + - * / and parentheses: A / B * 100"
    return QueryRefused(f"formula {str(text)[:80]!r} cannot be read", hint=hint)
