"""Measures of a series, `"count"` or `"sum(revenue)"`, and formulas over series, `A / B * 100`, as SQL."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lakebed.errors import QueryRefused
from lakebed.events.event import BASE_COLUMNS
from lakebed.events.promotions import Promotion, column_sql, quoted

__all__ = ["LETTERS", "Measure", "formula_sql"]

_FORM = re.compile(r"\s*(sum|avg|min|max|distinct|quantile)\s*\((.*)\)\s*", re.DOTALL)
_QUANTILE = re.compile(r"(.*),\s*(\d*\.?\d+)\s*", re.DOTALL)
_HINT = "Use count, people, sum(x), avg(x), min(x), max(x), distinct(x) or quantile(x, 0.95)"


class Measure(msgspec.Struct, frozen=True):
    """The aggregate of a measure over `events`.

    Attributes:
        sql: SQL of the aggregate.
        counts: whether the aggregate is 0 if there are no events; otherwise it is NULL then.
        summed: SQL of the numbers that a sum adds up; None if the measure is not a sum.
    """

    sql: str
    counts: bool = False
    summed: str | None = None

    @classmethod
    def parse(cls, text: str, promotions: Iterable[Promotion], *, number: bool = False) -> Measure:
        """Parse `count`, `people`, `sum(x)`, `avg(x)`, `min(x)`, `max(x)`, `distinct(x)` or `quantile(x, q)`.

        x is a column, a promoted column, or else a top-level property. A property counts if it is a finite number; in
        `distinct` it is read as text. Any name may be written in quotes: `"x y"`.

        Args:
            text: name of the measure, with its column.
            promotions: the promoted columns.
            number: whether the measure has to be a number. If not, `min` and `max` take texts and times, too.

        Raises:
            QueryRefused: `text` is anything else.
        """
        plain = text.strip().removesuffix("()") if isinstance(text, str) else ""
        if plain in ("count", "people"):
            return cls("count(*)" if plain == "count" else "count(DISTINCT person_id)", counts=True)
        match = _FORM.fullmatch(plain)
        if match is None:
            raise QueryRefused(f"measure {text!r} is not known", hint=_HINT)
        function, argument = match.groups()
        if function == "quantile":
            return _quantile(text, argument, promotions)
        name = _name(text, argument)
        if function == "distinct":
            return cls(f"count(DISTINCT {column_sql(name, promotions)})", counts=True)
        value, is_float = _number_sql(name, promotions, ordered=function in ("min", "max") and not number)
        # fsum compensates rounding, so the sum does not depend on the order in which threads add.
        aggregate = "fsum" if function == "sum" and is_float else function
        return cls(f"{aggregate}({value})", summed=value if function == "sum" else None)


def _quantile(text: str, argument: str, promotions: Iterable[Promotion]) -> Measure:
    match = _QUANTILE.fullmatch(argument)
    if match is None or not 0 <= float(match.group(2)) <= 1:
        raise QueryRefused(f"measure {text!r} has no quantile from 0 to 1", hint=_HINT)
    number, _ = _number_sql(_name(text, match.group(1)), promotions, ordered=False)
    return Measure(f"quantile_cont(CAST({number} AS DOUBLE), {match.group(2)})")


def _name(text: str, argument: str) -> str:
    name = argument.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('""', '"')
    if not name:
        raise QueryRefused(f"measure {text!r} names no column", hint=_HINT)
    return name


def _number_sql(name: str, promotions: Iterable[Promotion], *, ordered: bool) -> tuple[str, bool]:
    """SQL of the column or property `name`, and whether its type is floating point."""
    kinds = {promotion.name: promotion.type for promotion in promotions}
    if name not in kinds and name not in BASE_COLUMNS and name != "person_id":
        return Promotion(name, "float").sql, True
    if ordered or kinds.get(name) in ("int", "float", "Decimal") or name == "seq":
        return quoted(name), kinds.get(name) == "float"
    raise QueryRefused(f"{name} is not a numeric column", hint="Name a numeric column, or use distinct")


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_LENGTH = 200
_SIGNS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}


def formula_sql(text: str, columns: Sequence[str]) -> str:
    """SQL of a formula; its value is a DOUBLE. A is the first of `columns`, B the second; a division by 0 is NULL.

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
    """The SQL of a part of a formula. Raises LookupError if formulas have no such part."""
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
