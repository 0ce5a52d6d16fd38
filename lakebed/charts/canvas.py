"""Canvas: SVG elements, every text escaped, every number rounded the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from lakebed.charts import formatting

__all__ = ["COLOURS", "Canvas", "clean"]

# Okabe and Ito's palette: distinct with every common colour blindness. Its black is the text's colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800")
# Characters that no XML may contain, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """`text` escaped for XML, for an element or an attribute; characters that XML forbids are replaced."""
    return escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


class Canvas:
    """SVG elements in the order in which they were drawn.

    Args:
        width: width in pixels.
        height: height in pixels; may be set later, once the chart knows its length.
    """

    def __init__(self, width: float = 860, height: float = 420) -> None:
        self.width = width
        self.height = height
        self.notes: list[str] = []
        self._parts: list[str] = []

    def body(self) -> str:
        """All elements."""
        return "\n".join(self._parts)

    def note(self, text: str) -> None:
        """Add a line under the chart, about the rows that it does not show."""
        self.notes.append(text)

    def place(self, other: Canvas, y: float) -> None:
        """Draw another canvas, `y` pixels below the top of this one, with its notes."""
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
        """Draw a text at its baseline. A text wider than `max_width` is cut, and its tooltip is `whole` or the text."""
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
