"""Lines over time: one for each series."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lakebed.charts import formatting
from lakebed.charts.axes import Axes
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["lines"]

_MOST_LINES = 12
_MOST_POINTS = 600  # of a line: more than the picture has pixels for
_DOTTED = 40  # so many points of a line have dots with tooltips
_DASHES = ("", "6 4", "2 3")

Point = tuple[date, float | None, str]


def lines(frame: Columns, time: str, values: Sequence[str], by: Sequence[str]) -> tuple[Canvas, str]:
    """The numbers of `values` over `time`, a line for each of them and each label of `by`."""
    series: dict[str, list[Point]] = {}
    labels = frame.labels(by)
    times = frame[time]
    for value in values:
        for when, label, found in zip(times, labels, frame[value], strict=True):
            if when is not None:
                name = " · ".join(part for part in (label, value if len(values) > 1 else "") if part) or value
                series.setdefault(name, []).append((when, formatting.number(found), formatting.figure(found)))
    canvas = Canvas()
    if len(series) > _MOST_LINES:
        canvas.note(f"The first {_MOST_LINES} of {formatting.figure(len(series))} series are drawn.")
    drawn = {name: sorted(points, key=lambda one: one[0]) for name, points in list(series.items())[:_MOST_LINES]}
    whole = sum(map(len, drawn.values()))
    drawn = {name: _thinned(points) for name, points in drawn.items()}
    kept = sum(map(len, drawn.values()))
    if kept < whole:
        canvas.note(
            f"{formatting.figure(kept)} of {formatting.figure(whole)} points are drawn: "
            "the lowest and the highest of each stretch."
        )
    styles = {name: (COLOURS[n % len(COLOURS)], _DASHES[n // len(COLOURS) % 3]) for n, name in enumerate(drawn)}
    top = canvas.legend(((name, *styles[name]) for name in drawn), 24, 12) if drawn else 12
    canvas.height += max(0, top - 60)
    every = sorted({point[0] for points in drawn.values() for point in points})
    numbers = [point[1] for points in drawn.values() for point in points if point[1] is not None]
    if not every:
        canvas.text(canvas.width / 2, 120, "no times", anchor="middle", kind="lb-soft")
        return canvas, "No row has a time."
    axes = Axes(canvas, every, numbers, top)
    for name, points in drawn.items():
        _draw(canvas, axes, name, points, *styles[name])
    lowest, highest = (formatting.figure(f(numbers)) if numbers else formatting.NOTHING for f in (min, max))
    said = f"{', '.join(drawn)} from {formatting.moment(every[0])} to {formatting.moment(every[-1])}"
    return canvas, f"{said}; lowest {lowest}, highest {highest}."


def _draw(canvas: Canvas, axes: Axes, name: str, points: list[Point], colour: str, dash: str) -> None:
    stretch: list[tuple[float, float]] = []
    for position, (when, value, told) in enumerate([*points, (points[-1][0], None, "")]):
        if value is not None:
            stretch.append((axes.x(when), axes.y(value)))
            alone = len(stretch) == 1 and (position + 1 == len(points) or points[position + 1][1] is None)
            if len(points) <= _DOTTED or alone:
                canvas.dot(*stretch[-1], 3, colour, f"{name}, {formatting.moment(when)}: {told}")
        else:
            if len(stretch) > 1:
                canvas.line(stretch, colour, dash, name)
            stretch = []


def _thinned(points: list[Point]) -> list[Point]:
    """The lowest and the highest of each stretch of points, in order; what stands out stays."""
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-len(points) * 2 // _MOST_POINTS)
    kept: list[Point] = []
    for begin in range(0, len(points), size):
        part = points[begin : begin + size]
        known = [n for n, point in enumerate(part) if point[1] is not None]
        if not known:
            kept.append(part[0])
            continue
        ends = {min(known, key=lambda n: part[n][1] or 0.0), max(known, key=lambda n: part[n][1] or 0.0)}
        kept.extend(part[n] for n in sorted(ends))
    return kept
