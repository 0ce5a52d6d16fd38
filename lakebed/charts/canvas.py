"""Canvas: SVG elements; every text is escaped, every number rounded in one way. Axes: a scale over time on a canvas."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from html import escape
from typing import Any

from lakebed.charts import formatting

__all__ = ["COLOURS", "Axes", "Canvas", "clean", "instant", "ticks"]

# Okabe and Ito's palette: distinct with every common colour blindness. Black is left out: it is the text's colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800")
# Characters that no XML may contain, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """`text`, escaped for an element or attribute of XML. Characters that XML forbids are replaced."""
    return escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


class Canvas:
    """SVG elements in the order in which they were drawn.

    Args:
        width: width in pixels.
        height: height in pixels; may be set later, when the length of the chart is known.
    """

    def __init__(self, width: float = 860, height: float = 420) -> None:
        self.width = width
        self.height = height
        self.notes: list[str] = []
        self._parts: list[str] = []

    def body(self) -> str:
        """The SVG of all elements."""
        return "\n".join(self._parts)

    def note(self, text: str) -> None:
        """Add a line under the chart, about the rows that it does not show."""
        self.notes.append(text)

    def place(self, other: Canvas, y: float) -> None:
        """Draw another canvas `y` pixels below the top of this canvas, and add the notes of the other one."""
        self._parts.append(f'<g transform="translate(0 {_n(y)})">\n{other.body()}\n</g>')
        self.notes += [note for note in other.notes if note not in self.notes]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        kind: str = "",
        max_width: float | None = None,
        size: float = 12,
        whole: str | None = None,
    ) -> None:
        """Draw a text at its baseline. A text wider than `max_width` is cut; `whole`, or the text, is its tooltip."""
        shown = text if max_width is None else formatting.cut(text, max_width, size)
        tip = whole if whole is not None else text if shown != text else None
        title = "" if tip is None else f"<title>{clean(tip)}</title>"
        style = f' class="{kind}"' if kind else ""
        style += "" if anchor == "start" else f' text-anchor="{anchor}"'
        style += "" if size == 12 else f' font-size="{_n(size)}"'  # noqa: PLR2004 - the font size of the page
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{style}>{title}{clean(shown)}</text>')

    def rect(self, x: float, y: float, w: float, h: float, fill: str, tip: str = "", *, opacity: float = 1) -> None:
        """Draw a rectangle with a tooltip."""
        transparent = "" if opacity == 1 else f' fill-opacity="{_n(opacity)}"'
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(w, 0))}" height="{_n(max(h, 0))}"'
        self._parts.append(f'<rect {place} rx="2" fill="{fill}"{transparent}>{self._tip(tip)}</rect>')

    def rule(self, x1: float, y1: float, x2: float, y2: float, kind: str = "lb-grid") -> None:
        """Draw a straight line."""
        ends = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
        self._parts.append(f'<line class="{kind}" {ends}/>')

    def line(self, points: Iterable[tuple[float, float]], colour: str, dash: str = "", tip: str = "") -> None:
        """Draw a line through points."""
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"{dashed}>'
            f"{self._tip(tip)}</polyline>"
        )

    def area(self, points: Iterable[tuple[float, float]], colour: str, opacity: float, tip: str = "") -> None:
        """Fill the area within points."""
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(
            f'<polygon points="{path}" fill="{colour}" fill-opacity="{opacity}">{self._tip(tip)}</polygon>'
        )

    def ribbon(self, start: tuple[float, float], end: tuple[float, float], thick: float, colour: str, tip: str) -> None:
        """Draw a band that flows from one point to the other. The points are its upper corners."""
        (x1, y1), (x2, y2), middle = start, end, (start[0] + end[0]) / 2
        upper = f"M{_n(x1)} {_n(y1)}C{_n(middle)} {_n(y1)} {_n(middle)} {_n(y2)} {_n(x2)} {_n(y2)}"
        lower = f"C{_n(middle)} {_n(y2 + thick)} {_n(middle)} {_n(y1 + thick)} {_n(x1)} {_n(y1 + thick)}Z"
        path = f"{upper}V{_n(y2 + thick)}{lower}"
        self._parts.append(f'<path d="{path}" fill="{colour}" fill-opacity="0.14">{self._tip(tip)}</path>')

    def dot(self, x: float, y: float, radius: float, colour: str, tip: str) -> None:
        """Draw a point with a tooltip."""
        self._parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{colour}">{self._tip(tip)}</circle>'
        )

    def legend(self, entries: Iterable[tuple[str, str, str]], x: float, y: float, max_width: float = 220) -> float:
        """Draw names beside their colours and dashes, in lines of the chart's width. Returns the y below them."""
        left = x
        for text, colour, dash in entries:
            width = min(formatting.width(text), max_width) + 36
            if left > x and left + width > self.width - 16:
                left, y = x, y + 20
            if dash:
                self.line(((left - 4, y - 4), (left + 12, y - 4)), colour, dash)
            else:
                self.rect(left, y - 9, 10, 10, colour)
            self.text(left + 16, y, text, max_width=max_width)
            left += width
        return y + 20

    @staticmethod
    def _tip(tip: str) -> str:
        return f"<title>{clean(tip)}</title>" if tip else ""


_STEPS = (1, 2, 2.5, 5, 10)
_MAX_LABELS = 7
_MAX_LABEL_WIDTH = 400  # a number may have 400 characters
_SMALLEST, _LARGEST = 1e-9, 1e300  # a smaller or larger step is not a float


def instant(value: Any) -> float:
    """A date or a time, in seconds since 1970."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, from at or below `low` to at or above `high`."""
    if high - low < _SMALLEST:
        high = low + 1
    rough = min(high / count - low / count, _LARGEST)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in _STEPS if size * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(multiple * step, 12) for multiple in range(first, last + 1)]


class Axes:
    """Computes the places of times and numbers on a canvas. Creating it draws the scale and the labels.

    Args:
        canvas: canvas to draw on.
        times: all times, in order.
        values: all numbers; the scale always includes zero.
        top: pixels from the top of the canvas, below the legend.
        inset: pixels left free on both sides of the times, such as half a bar.
    """

    def __init__(
        self, canvas: Canvas, times: Sequence[date], values: Sequence[float], top: float, inset: float = 0
    ) -> None:
        self._scale = ticks(min(0.0, *values, 0.0), max(0.0, *values, 0.0))
        marks = [formatting.figure(float(value)) for value in self._scale]
        self.left = 24 + min(_MAX_LABEL_WIDTH, max(formatting.width(mark) for mark in marks)) + 8
        self.right, self.top, self.bottom = canvas.width - 28.0, top, canvas.height - 34.0
        self._start, self._end = instant(times[0]), instant(times[-1])
        self._inset = inset
        for mark, value in zip(marks, self._scale, strict=True):
            y = self.y(value)
            canvas.rule(self.left, y, self.right, y, "lb-axis" if value == 0 else "lb-grid")
            canvas.text(self.left - 8, y + 4, mark, anchor="end", kind="lb-soft", max_width=_MAX_LABEL_WIDTH)
        self._label_times(canvas, times)

    def x(self, time: date) -> float:
        """The x of a time, in pixels."""
        left, right = self.left + self._inset, self.right - self._inset
        if self._end == self._start:
            return (left + right) / 2
        return left + (right - left) * (instant(time) - self._start) / (self._end - self._start)

    def y(self, value: float) -> float:
        """The y of a number, in pixels."""
        low, high = self._scale[0], self._scale[-1]
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def _label_times(self, canvas: Canvas, times: Sequence[date]) -> None:
        free, step = 0.0, max(1, -(-len(times) // _MAX_LABELS))
        shown_year: int | None = None
        for time in times[::step]:
            label = formatting.moment(time, year=time.year != shown_year)
            half = formatting.width(label) / 2
            x = min(max(self.x(time), half + 4), canvas.width - half - 4)
            if x - half < free:
                continue
            canvas.text(x, self.bottom + 20, label, anchor="middle", kind="lb-soft")
            free, shown_year = x + half + 10, time.year
