"""Chart of a lifecycle: the people of a period above the line, the dormant ones below it."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.axes import Axes
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["stacked"]

_PARTS = {"returning": COLOURS[0], "resurrecting": COLOURS[5], "new": COLOURS[2], "dormant": COLOURS[3]}
_MAX_PERIODS = 120


def stacked(frame: Columns) -> tuple[Canvas, str]:
    """A bar for each period: returning, resurrecting and new people up, dormant ones down."""
    canvas = Canvas()
    rows = sorted(zip(frame["time"], *(frame[part] for part in _PARTS), strict=True), key=lambda row: row[0])
    if len(rows) > _MAX_PERIODS:
        canvas.note(f"The newest {_MAX_PERIODS} of {formatting.figure(len(rows))} periods are drawn.")
        rows = rows[-_MAX_PERIODS:]
    top = canvas.legend(((part, colour, "") for part, colour in _PARTS.items()), 24, 12)
    thick = min(48.0, 700 / len(rows) * 0.72)
    values = [float(sum(row[1:4])) for row in rows] + [-float(row[4]) for row in rows]
    axes = Axes(canvas, [row[0] for row in rows], values, top, inset=thick / 2 + 8)
    for time, *counts in rows:
        x, above = axes.x(time) - thick / 2, 0.0
        for (part, colour), count in zip(_PARTS.items(), counts, strict=True):
            low, high = (-count, 0.0) if part == "dormant" else (above, above + count)
            tip = f"{formatting.moment(time)}, {part}: {formatting.figure(count)}"
            if count:
                canvas.rect(x, axes.y(high), thick, axes.y(low) - axes.y(high), colour, tip)
            above += 0 if part == "dormant" else count
    last = ", ".join(f"{part} {formatting.figure(count)}" for part, count in zip(_PARTS, rows[-1][1:], strict=True))
    return canvas, f"{len(rows)} periods; the last, {formatting.moment(rows[-1][0])}: {last}."
