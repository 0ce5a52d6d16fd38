"""Anomalies: the counts, the band in which they were expected, and those outside it marked."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.axes import Axes
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["band"]

_COLUMNS = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
_MOST = 2000


def band(frame: Columns) -> tuple[Canvas, str]:
    """The line of `value`, `low` to `high` behind it, a marked point for each anomaly."""
    canvas = Canvas()
    rows = sorted(zip(*(frame[column] for column in _COLUMNS), strict=True), key=lambda row: row[0])
    if len(rows) > _MOST:
        canvas.note(f"The newest {_MOST:,} of {formatting.figure(len(rows))} periods are drawn.")
        rows = rows[-_MOST:]
    top = canvas.legend(
        (("value", COLOURS[0], ""), ("expected, low to high", COLOURS[5], ""), ("anomaly", COLOURS[3], "")), 24, 12
    )
    numbers = [
        found for row in rows for value in (row[1], row[3], row[4]) if (found := formatting.number(value)) is not None
    ]
    axes = Axes(canvas, [row[0] for row in rows], numbers, top)
    judged: list[tuple[float, float, float]] = []
    for time, _, _, low, high, _, _ in [*rows, (rows[-1][0], None, None, None, None, None, None)]:
        bottom, upper = formatting.number(low), formatting.number(high)
        if bottom is not None and upper is not None:
            judged.append((axes.x(time), axes.y(bottom), axes.y(upper)))
        elif judged:
            edge = [(x, y) for x, y, _ in judged] + [(x, y) for x, _, y in reversed(judged)]
            canvas.area(edge, COLOURS[5], 0.25, "expected, low to high")
            judged = []
    points = [(axes.x(row[0]), axes.y(found)) for row in rows if (found := formatting.number(row[1])) is not None]
    if len(points) > 1:
        canvas.line(points, COLOURS[0], tip="value")
    marked = 0
    for time, value, expected, low, high, odd, reason in rows:
        found = formatting.number(value)
        if found is None or not (odd or len(rows) <= 60):  # noqa: PLR2004 - more dots than these would be a line
            continue
        marked += bool(odd)
        between = f"expected {formatting.figure(expected)}, {formatting.figure(low)} to {formatting.figure(high)}"
        tip = f"{formatting.moment(time)}: {formatting.figure(value)}; {between}{'; ' + reason if reason else ''}"
        canvas.dot(axes.x(time), axes.y(found), 6 if odd else 3, COLOURS[3] if odd else COLOURS[0], tip)
    return canvas, f"{len(rows)} periods, {marked} of them marked as anomalies."
