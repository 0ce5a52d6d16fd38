"""Charts over time: a line for each series, anomalies with the band of expected values, the events of a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Axes, Canvas, instant
from lakebed.charts.columns import Columns

__all__ = ["band", "lines", "strip"]

_MAX_LINES = 12
_LINE_MAX_POINTS = 600  # of a line: the chart has fewer pixels
_LINE_MAX_DOTS = 40  # of a line; with more points it has no dots with tooltips
_DASHES = ("", "6 4", "2 3")

Point = tuple[date, float | None, str]


def lines(frame: Columns, time: str, values: Sequence[str], by: Sequence[str]) -> tuple[Canvas, str]:
    """Draw the columns `values` over the column `time`: a line for each column and each label of `by`."""
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
            if len(points) <= _LINE_MAX_DOTS or alone:
                canvas.dot(*stretch[-1], 3, colour, f"{name}, {formatting.moment(moment)}: {text}")
        else:
            if len(stretch) > 1:
                canvas.line(stretch, colour, dash, name)
            stretch = []


def _thinned(points: list[Point]) -> list[Point]:
    """The lowest and the highest point of each stretch of points, in order, so that peaks stay."""
    if len(points) <= _LINE_MAX_POINTS:
        return points
    size = -(-len(points) * 2 // _LINE_MAX_POINTS)
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


_COLUMNS = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
_MAX_PERIODS = 2000
_ANOMALY_BAND_MAX_DOTS = 60  # more dots than these would be a line


def band(frame: Columns) -> tuple[Canvas, str]:
    """Draw the line of `value`, the band from `low` to `high` behind it, and a marked point for each anomaly."""
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
        if length is None or not (is_anomaly or len(rows) <= _ANOMALY_BAND_MAX_DOTS):
            continue
        marked += bool(is_anomaly)
        between = f"expected {formatting.figure(expected)}, {formatting.figure(low)} to {formatting.figure(high)}"
        tip = f"{formatting.moment(time)}: {formatting.figure(value)}; {between}{'; ' + reason if reason else ''}"
        radius, colour = (6, COLOURS[3]) if is_anomaly else (3, COLOURS[0])
        canvas.dot(axes.x(time), axes.y(length), radius, colour, tip)
    return canvas, f"{len(rows)} periods, {marked} of them marked as anomalies."


_MAX_KINDS = 20
_EVENT_STRIP_MAX_POINTS = 2000
_ROW = 30


def strip(frame: Columns) -> tuple[Canvas, str]:
    """Draw the events of the report `timeline` along time."""
    canvas = Canvas()
    rows = [
        (time, formatting.name(event or kind))
        for time, event, kind in zip(frame["timestamp"], frame["event"], frame["type"], strict=True)
    ]
    kinds = list(dict.fromkeys(kind for _, kind in rows))
    if len(kinds) > _MAX_KINDS or len(rows) > _EVENT_STRIP_MAX_POINTS:
        canvas.note(
            f"The newest {_EVENT_STRIP_MAX_POINTS:,} events of up to {_MAX_KINDS} kinds are drawn, of {len(rows):,}."
        )
    rows, kinds = rows[:_EVENT_STRIP_MAX_POINTS], kinds[:_MAX_KINDS]
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
