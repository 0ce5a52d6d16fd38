"""Chart of a timeline: a row for each kind of event, a point for each event."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.axes import instant
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["strip"]

_MAX_KINDS = 20
_MAX_POINTS = 2000
_ROW = 30


def strip(frame: Columns) -> tuple[Canvas, str]:
    """The events of `timeline` along time."""
    canvas = Canvas()
    rows = [
        (time, formatting.name(event or kind))
        for time, event, kind in zip(frame["timestamp"], frame["event"], frame["type"], strict=True)
    ]
    kinds = list(dict.fromkeys(kind for _, kind in rows))
    if len(kinds) > _MAX_KINDS or len(rows) > _MAX_POINTS:
        canvas.note(f"The newest {_MAX_POINTS:,} events of up to {_MAX_KINDS} kinds are drawn, of {len(rows):,}.")
    rows, kinds = rows[:_MAX_POINTS], kinds[:_MAX_KINDS]
    names = min(200, max(formatting.width(kind) for kind in kinds))
    left, right = 24 + names + 20, canvas.width - 40
    begin, end = min(row[0] for row in rows), max(row[0] for row in rows)
    for position, kind in enumerate(kinds):
        y = 20 + position * _ROW
        canvas.text(24, y + 4, kind, max_width=names)
        canvas.rule(left, y, right, y)
    for time, kind in rows:
        if kind in kinds:
            share = (instant(time) - instant(begin)) / (instant(end) - instant(begin) or 1)
            colour = COLOURS[kinds.index(kind) % len(COLOURS)]
            x = left + (right - left) * share
            canvas.dot(x, 20 + kinds.index(kind) * _ROW, 5, colour, f"{kind}, {formatting.moment(time)}")
    below = 20 + len(kinds) * _ROW
    canvas.text(left, below + 4, formatting.moment(begin), kind="lb-soft")
    if end > begin:
        canvas.text(right, below + 4, formatting.moment(end), anchor="end", kind="lb-soft")
    canvas.height = below + 20
    return canvas, f"{len(rows)} events from {formatting.moment(begin)} to {formatting.moment(end)}."
