"""The parsed text of a measure, such as `quantile("load time", 0.95)`."""

from __future__ import annotations

import re

import msgspec

from lakebed.errors import InvalidRollup

__all__ = ["FUNCTIONS", "Expression"]

FUNCTIONS = ("count", "sum", "avg", "min", "max", "distinct", "quantile")
_SHAPE = re.compile(
    r"""^\s*(?P<function>[A-Za-z_]+)\s*\(\s*
    (?:(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[A-Za-z_][\w .$-]*?))\s*(?:,\s*(?P<q>[0-9.eE+-]+)\s*)?)?
    \)\s*$""",
    re.VERBOSE,
)
_HINT = (
    'Use count(), sum(x), avg(x), min(x), max(x), distinct(x) or quantile(x, 0.95); "x y" where x is not a plain word'
)


class Expression(msgspec.Struct, frozen=True):
    """A function in `FUNCTIONS`, its column or property ("" for count), and the rank if it is a quantile."""

    function: str
    column: str
    rank: float | None = None

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Parse `text`. Raises InvalidRollup, with a hint that says what is allowed."""
        match = _SHAPE.match(text) if isinstance(text, str) else None
        if match is None:
            raise _invalid(text)
        function = match["function"].lower()
        column = (match["quoted"] or "").replace('""', '"') or match["plain"] or ""
        takes = (function != "count", function == "quantile")
        if function not in FUNCTIONS or (bool(column), bool(match["q"])) != takes:
            raise _invalid(text)
        return cls(function, column, _rank(text, match["q"]) if match["q"] else None)


def _rank(text: str, written: str) -> float:
    try:
        rank = float(written)
    except ValueError:
        raise _invalid(text) from None
    if not 0 <= rank <= 1:
        raise InvalidRollup(f"the rank in {text!r} is {rank}", hint="Use 0 to 1: 0.5 is the median")
    return rank


def _invalid(text: object) -> InvalidRollup:
    return InvalidRollup(f"{text!r} is not a measure", hint=_HINT)
