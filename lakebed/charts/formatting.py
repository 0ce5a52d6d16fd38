"""How numbers, times and names are written in a picture."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime
from decimal import Decimal

__all__ = ["NOTHING", "cut", "figure", "moment", "name", "number", "percent", "span", "width"]

NOTHING = "\N{EN DASH}"  # what stands for no number
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LARGEST = 1e300  # a scale of more is no float
_NARROW = frozenset("iljtfrI.,:;'|!()[] ")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: object) -> float | None:
    """A value as a length: None for what is no finite number, or beyond 1e300."""
    if isinstance(value, (int, float, Decimal)):
        found = float(value)
        return found if abs(found) <= _LARGEST else None
    return None


def figure(value: object) -> str:
    """A number with thousands separators: integers and decimals exactly, floats to four significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        written = f"{value:,f}"
        return written.rstrip("0").rstrip(".") if "." in written else written
    found = number(value)
    if found is None:
        return NOTHING
    whole = found == int(found) or abs(found) >= 10_000  # noqa: PLR2004 - beyond four digits a fraction says nothing
    return f"{found:,.0f}" if whole else f"{found:,.4g}"


def percent(share: object) -> str:
    """A share from 0 to 1 as a percentage, with one digit below ten."""
    found = number(share)
    if found is None:
        return NOTHING
    written = f"{found * 100:.1f}"
    return f"{written.removesuffix('.0')}%"


def span(seconds: object) -> str:
    """A length of time in its largest unit."""
    found = number(seconds)
    if found is None:
        return NOTHING
    for size, unit in _SPANS:
        if found >= size:
            return f"{found / size:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{found:,.3g} s"


def moment(value: object, *, year: bool = True) -> str:
    """A date or a time; midnight is its date."""
    if not isinstance(value, date):
        return name(value)
    written = f"{value.day} {_MONTHS[value.month - 1]}" + (f" {value.year}" if year else "")
    if isinstance(value, datetime) and (value.hour, value.minute, value.second) != (0, 0, 0):
        written += f" {value:%H:%M}" + (f":{value:%S}" if value.second else "")
    return written


def name(value: object) -> str:
    """A value as a label; dates as dates, nothing as "(none)"."""
    if value is None:
        return "(none)"
    if isinstance(value, date):
        return moment(value)
    return str(value) or "(empty)"


def width(text: str, size: float = 12) -> float:
    """About how wide a text is in a sans-serif face, in pixels; rather too wide."""
    units = 0.0
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            units += 1.0
        else:
            units += 0.34 if char in _NARROW else 0.78 if char.isupper() or char in "mwMW%" else 0.63
    return units * size


def cut(text: str, room: float, size: float = 12) -> str:
    """The text, or as much of it as fits into `room` pixels with an ellipsis behind."""
    if width(text, size) <= room:
        return text
    used = width("…", size)
    for position, char in enumerate(text):
        used += width(char, size)
        if used > room:
            return text[:position].rstrip() + "…"
    return text
