"""Chart of anomalies: the values, the band in which they are expected, and a mark at each value outside it."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.axes import Axes
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["band"]

_COLUMNS = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
_MAX_PERIODS = 2000
_MAX_DOTS = 60  # more dots than these would be a line


def band(frame: Columns) -> tuple[Canvas, str]:
    """The line of `value`, `low` to `high` behind it, a marked point for each anomaly."""
    canvas = Canvas()
    rows = sorted(zip(*(frame[column] for column in _COLUMNS), strict=True), key=lambda row: row[0])
    if len(rows) > _MAX_PERIODS:
        canvas.note(f"The newest {_MAX_PERIODS:,} of {formatting.figure(len(rows))} periods are drawn.")
        rows = rows[-_MAX_PERIODS:]
    top = canvas.legend(
        (("value", COLOURS[0], ""), ("expected, low to high", COLOURS[5], ""), ("anomaly", COLOURS[3], "")), 24, 12
    )
    lengths = [formatting.number(value) for row in rows for value in (row[1], row[3], row[4])]
    axes = Axes(canvas, [row[0] for row in rows], [length for length in lengths if length is not None], top)
    band_points: list[tuple[float, float, float]] = []
    for time, _, _, low, high, _, _ in [*rows, (rows[-1][0], None, None, None, None, None, None)]:
        bottom, upper = formatting.number(low), formatting.number(high)
        if bottom is not None and upper is not None:
            band_points.append((axes.x(time), axes.y(bottom), axes.y(upper)))
        elif band_points:
            edge = [(x, y) for x, y, _ in band_points] + [(x, y) for x, _, y in reversed(band_points)]
            canvas.area(edge, COLOURS[5], 0.25, "expected, low to high")
            band_points = []
    values = [(row[0], formatting.number(row[1])) for row in rows]
    points = [(axes.x(time), axes.y(length)) for time, length in values if length is not None]
    if len(points) > 1:
        canvas.line(points, COLOURS[0], tip="value")
    marked = 0
    for time, value, expected, low, high, is_anomaly, reason in rows:
        length = formatting.number(value)
        if length is None or not (is_anomaly or len(rows) <= _MAX_DOTS):
            continue
        marked += bool(is_anomaly)
        between = f"expected {formatting.figure(expected)}, {formatting.figure(low)} to {formatting.figure(high)}"
        tip = f"{formatting.moment(time)}: {formatting.figure(value)}; {between}{'; ' + reason if reason else ''}"
        radius, colour = (6, COLOURS[3]) if is_anomaly else (3, COLOURS[0])
        canvas.dot(axes.x(time), axes.y(length), radius, colour, tip)
    return canvas, f"{len(rows)} periods, {marked} of them marked as anomalies."
