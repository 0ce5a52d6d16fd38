"""Formatting: how numbers, times and names are written in a chart."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from decimal import Decimal

from lakebed.clock import DAY_S, HOUR_S, MINUTE_S

__all__ = ["NOTHING", "cut", "figure", "moment", "name", "number", "percent", "span", "width"]

NOTHING = "\N{EN DASH}"
"""Stands for a value that is not a number."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LARGEST = 1e300  # the scale of a larger number would not be a float
_NARROW = frozenset("iljtfrI.,:;'|!()[] ")
_SPANS = ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min"))


def number(value: object) -> float | None:
    """`value` as a float. Returns None if it is not a finite number, or is beyond 1e300."""
    if isinstance(value, (int, float, Decimal)):
        length = float(value)
        return length if abs(length) <= _LARGEST else None
    return None


def figure(value: object) -> str:
    """A number with thousands separators: integers and decimals exactly, floats to four significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        text = f"{value:,f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    length = number(value)
    if length is None:
        return NOTHING
    is_whole = length == int(length) or abs(length) >= 10_000  # noqa: PLR2004 - a fraction would be a fifth digit
    return f"{length:,.0f}" if is_whole else f"{length:,.4g}"


def percent(share: object) -> str:
    """A share from 0 to 1 as a percentage with one decimal, which is left out if it is 0."""
    fraction = number(share)
    if fraction is None:
        return NOTHING
    text = f"{fraction * 100:.1f}"
    return f"{text.removesuffix('.0')}%"


def span(seconds: object) -> str:
    """A length of time as text, in the largest unit that fits."""
    length = number(seconds)
    if length is None:
        return NOTHING
    for size, unit in _SPANS:
        if length >= size:
            return f"{length / size:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{length:,.3g} s"


def moment(value: object, *, year: bool = True) -> str:
    """A date or time as text. Midnight is written as a date only."""
    if not isinstance(value, date):
        return name(value)
    text = f"{value.day} {_MONTHS[value.month - 1]}" + (f" {value.year}" if year else "")
    if isinstance(value, datetime) and (value.hour, value.minute, value.second) != (0, 0, 0):
        text += f" {value:%H:%M}" + (f":{value:%S}" if value.second else "")
    return text


def name(value: object) -> str:
    """`value` as a label: None becomes "(none)", an empty text "(empty)"."""
    if value is None:
        return "(none)"
    if isinstance(value, date):
        return moment(value)
    return str(value) or "(empty)"


def width(text: str, size: float = 12) -> float:
    """An upper estimate of the width of a text in a sans-serif font, in pixels."""
    units = 0.0
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            units += 1.0
        else:
            units += 0.34 if char in _NARROW else 0.78 if char.isupper() or char in "mwMW%" else 0.63
    return units * size


def cut(text: str, max_width: float, size: float = 12) -> str:
    """`text` if it fits into `max_width` pixels; otherwise the beginning that fits, and an ellipsis."""
    if width(text, size) <= max_width:
        return text
    used = width("…", size)
    for position, char in enumerate(text):
        used += width(char, size)
        if used > max_width:
            return text[:position].rstrip() + "…"
    return text
