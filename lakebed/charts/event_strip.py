"""One person's events: a row for each kind, a point for each event."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.axes import instant
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["strip"]

_MOST_KINDS = 20
_MOST_POINTS = 2000
_ROW = 30


def strip(frame: Columns) -> tuple[Canvas, str]:
    """The events of `timeline` along time."""
    canvas = Canvas()
    rows = [
        (when, formatting.name(event or kind))
        for when, event, kind in zip(frame["timestamp"], frame["event"], frame["type"], strict=True)
    ]
    kinds = list(dict.fromkeys(kind for _, kind in rows))
    if len(kinds) > _MOST_KINDS or len(rows) > _MOST_POINTS:
        canvas.note(f"The newest {_MOST_POINTS:,} events of up to {_MOST_KINDS} kinds are drawn, of {len(rows):,}.")
    rows, kinds = rows[:_MOST_POINTS], kinds[:_MOST_KINDS]
    names = min(200, max(formatting.width(kind) for kind in kinds))
    left, right = 24 + names + 20, canvas.width - 40
    begin, end = min(row[0] for row in rows), max(row[0] for row in rows)
    for position, kind in enumerate(kinds):
        y = 20 + position * _ROW
        canvas.text(24, y + 4, kind, room=names)
        canvas.rule(left, y, right, y)
    for when, kind in rows:
        if kind in kinds:
            share = (instant(when) - instant(begin)) / (instant(end) - instant(begin) or 1)
            colour = COLOURS[kinds.index(kind) % len(COLOURS)]
            x = left + (right - left) * share
            canvas.dot(x, 20 + kinds.index(kind) * _ROW, 5, colour, f"{kind}, {formatting.moment(when)}")
    below = 20 + len(kinds) * _ROW
    canvas.text(left, below + 4, formatting.moment(begin), kind="lb-soft")
    if end > begin:
        canvas.text(right, below + 4, formatting.moment(end), anchor="end", kind="lb-soft")
    canvas.height = below + 20
    return canvas, f"{len(rows)} events from {formatting.moment(begin)} to {formatting.moment(end)}."
