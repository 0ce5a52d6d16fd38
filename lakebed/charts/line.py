"""Line chart: a line over time for each series."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lakebed.charts import formatting
from lakebed.charts.axes import Axes
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["lines"]

_MAX_LINES = 12
_MAX_POINTS = 600  # of a line: the chart has fewer pixels
_MAX_DOTS = 40  # of a line; with more points it has no dots with tooltips
_DASHES = ("", "6 4", "2 3")

Point = tuple[date, float | None, str]


def lines(frame: Columns, time: str, values: Sequence[str], by: Sequence[str]) -> tuple[Canvas, str]:
    """The numbers of `values` over `time`, a line for each of them and each label of `by`."""
    series: dict[str, list[Point]] = {}
    labels = frame.labels(by)
    times = frame[time]
    for value in values:
        for moment, label, figure in zip(times, labels, frame[value], strict=True):
            if moment is not None:
                name = " · ".join(part for part in (label, value if len(values) > 1 else "") if part) or value
                series.setdefault(name, []).append((moment, formatting.number(figure), formatting.figure(figure)))
    canvas = Canvas()
    if len(series) > _MAX_LINES:
        canvas.note(f"The first {_MAX_LINES} of {formatting.figure(len(series))} series are drawn.")
    drawn = {name: sorted(points, key=lambda point: point[0]) for name, points in list(series.items())[:_MAX_LINES]}
    all_points = sum(map(len, drawn.values()))
    drawn = {name: _thinned(points) for name, points in drawn.items()}
    shown_points = sum(map(len, drawn.values()))
    if shown_points < all_points:
        canvas.note(
            f"{formatting.figure(shown_points)} of {formatting.figure(all_points)} points are drawn: "
            "the lowest and the highest of each stretch."
        )
    styles = {name: (COLOURS[n % len(COLOURS)], _DASHES[n // len(COLOURS) % 3]) for n, name in enumerate(drawn)}
    top = canvas.legend(((name, *styles[name]) for name in drawn), 24, 12) if drawn else 12
    canvas.height += max(0, top - 60)
    moments = sorted({point[0] for points in drawn.values() for point in points})
    numbers = [point[1] for points in drawn.values() for point in points if point[1] is not None]
    if not moments:
        canvas.text(canvas.width / 2, 120, "no times", anchor="middle", kind="lb-soft")
        return canvas, "No row has a time."
    axes = Axes(canvas, moments, numbers, top)
    for name, points in drawn.items():
        _draw(canvas, axes, name, points, *styles[name])
    lowest, highest = (formatting.figure(end(numbers)) if numbers else formatting.NOTHING for end in (min, max))
    span = f"{', '.join(drawn)} from {formatting.moment(moments[0])} to {formatting.moment(moments[-1])}"
    return canvas, f"{span}; lowest {lowest}, highest {highest}."


def _draw(canvas: Canvas, axes: Axes, name: str, points: list[Point], colour: str, dash: str) -> None:
    stretch: list[tuple[float, float]] = []
    for position, (moment, value, text) in enumerate([*points, (points[-1][0], None, "")]):
        if value is not None:
            stretch.append((axes.x(moment), axes.y(value)))
            alone = len(stretch) == 1 and (position + 1 == len(points) or points[position + 1][1] is None)
            if len(points) <= _MAX_DOTS or alone:
                canvas.dot(*stretch[-1], 3, colour, f"{name}, {formatting.moment(moment)}: {text}")
        else:
            if len(stretch) > 1:
                canvas.line(stretch, colour, dash, name)
            stretch = []


def _thinned(points: list[Point]) -> list[Point]:
    """The lowest and the highest of each stretch of points, in order, so that peaks stay."""
    if len(points) <= _MAX_POINTS:
        return points
    size = -(-len(points) * 2 // _MAX_POINTS)
    thinned: list[Point] = []
    for begin in range(0, len(points), size):
        part = points[begin : begin + size]
        known = [n for n, point in enumerate(part) if point[1] is not None]
        if not known:
            thinned.append(part[0])
            continue
        ends = {min(known, key=lambda n: part[n][1] or 0.0), max(known, key=lambda n: part[n][1] or 0.0)}
        thinned.extend(part[n] for n in sorted(ends))
    return thinned
