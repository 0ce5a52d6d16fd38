"""What a picture is drawn on: SVG elements, every text escaped, every number rounded the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from lakebed.charts import formatting

__all__ = ["COLOURS", "Canvas", "clean"]

# Okabe and Ito's palette: told apart with every common colour blindness. Its black is the text's colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800")
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # no XML may hold these, escaped or not


def clean(text: str) -> str:
    """A text that may stand in XML, in an element or an attribute."""
    return escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


class Canvas:
    """Elements in the order in which they were drawn.

    Args:
        width: pixels.
        height: pixels; may be set later, when the picture knows how long it is.
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
        """Say under the picture what it does not show."""
        self.notes.append(text)

    def place(self, other: Canvas, y: float) -> None:
        """Another canvas as it is, so many pixels below the top of this one, with its notes."""
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
        room: float | None = None,
        size: float = 12,
        whole: str | None = None,
    ) -> None:
        """A text at its baseline. What does not fit into `room` is cut; the whole is its tooltip."""
        shown = text if room is None else formatting.cut(text, room, size)
        tip = whole if whole is not None else text if shown != text else None
        title = "" if tip is None else f"<title>{clean(tip)}</title>"
        style = f' class="{kind}"' if kind else ""
        style += "" if anchor == "start" else f' text-anchor="{anchor}"'
        style += "" if size == 12 else f' font-size="{_n(size)}"'  # noqa: PLR2004 - the size of the page
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{style}>{title}{clean(shown)}</text>')

    def rect(self, x: float, y: float, w: float, h: float, fill: str, tip: str = "", *, opacity: float = 1) -> None:
        """A rectangle with a tooltip."""
        see = "" if opacity == 1 else f' fill-opacity="{_n(opacity)}"'
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(w, 0))}" height="{_n(max(h, 0))}"'
        self._parts.append(f'<rect {place} rx="2" fill="{fill}"{see}>{self._tip(tip)}</rect>')

    def rule(self, x1: float, y1: float, x2: float, y2: float, kind: str = "lb-grid") -> None:
        """A straight line."""
        ends = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
        self._parts.append(f'<line class="{kind}" {ends}/>')

    def line(self, points: Iterable[tuple[float, float]], colour: str, dash: str = "", tip: str = "") -> None:
        """A line through points."""
        way = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"{dashed}>'
            f"{self._tip(tip)}</polyline>"
        )

    def area(self, points: Iterable[tuple[float, float]], colour: str, opacity: float, tip: str = "") -> None:
        """What lies within points."""
        way = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(
            f'<polygon points="{way}" fill="{colour}" fill-opacity="{opacity}">{self._tip(tip)}</polygon>'
        )

    def ribbon(self, start: tuple[float, float], end: tuple[float, float], thick: float, colour: str, tip: str) -> None:
        """A band that flows from one point to the other, both its upper corners."""
        (x1, y1), (x2, y2), middle = start, end, (start[0] + end[0]) / 2
        upper = f"M{_n(x1)} {_n(y1)}C{_n(middle)} {_n(y1)} {_n(middle)} {_n(y2)} {_n(x2)} {_n(y2)}"
        lower = f"C{_n(middle)} {_n(y2 + thick)} {_n(middle)} {_n(y1 + thick)} {_n(x1)} {_n(y1 + thick)}Z"
        way = f"{upper}V{_n(y2 + thick)}{lower}"
        self._parts.append(f'<path d="{way}" fill="{colour}" fill-opacity="0.14">{self._tip(tip)}</path>')

    def dot(self, x: float, y: float, radius: float, colour: str, tip: str) -> None:
        """A point with a tooltip."""
        self._parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{colour}">{self._tip(tip)}</circle>'
        )

    def legend(self, entries: Iterable[tuple[str, str, str]], x: float, y: float, room: float = 220) -> float:
        """Names beside their colours and dashes, in lines of the picture's width; the y below them."""
        left = x
        for text, colour, dash in entries:
            wide = min(formatting.width(text), room) + 36
            if left > x and left + wide > self.width - 16:
                left, y = x, y + 20
            if dash:
                self.line(((left - 4, y - 4), (left + 12, y - 4)), colour, dash)
            else:
                self.rect(left, y - 9, 10, 10, colour)
            self.text(left + 16, y, text, room=room)
            left += wide
        return y + 20

    @staticmethod
    def _tip(tip: str) -> str:
        return f"<title>{clean(tip)}</title>" if tip else ""
