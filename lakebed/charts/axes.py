"""Axes of a chart over time: a scale of numbers on the left, times below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from lakebed.charts import formatting
from lakebed.charts.canvas import Canvas

__all__ = ["Axes", "instant", "ticks"]

_STEPS = (1, 2, 2.5, 5, 10)
_MAX_LABELS = 7
_MAX_LABEL_WIDTH = 400  # a number may have 400 characters
_SMALLEST, _LARGEST = 1e-9, 1e300  # a smaller or larger step is not a float


def instant(value: Any) -> float:
    """A date or a time as seconds since 1970."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, from at or below `low` to at or above `high`."""
    if high - low < _SMALLEST:
        high = low + 1
    rough = min(high / count - low / count, _LARGEST)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in _STEPS if size * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(multiple * step, 12) for multiple in range(first, last + 1)]


class Axes:
    """The places of times and numbers on a canvas. Draws the scale and the labels.

    Args:
        canvas: canvas to draw on.
        times: all times, in order.
        values: all numbers; zero is always on the scale.
        top: pixels from the top of the canvas, below the legend.
        inset: pixels left free on both sides of the times, half a bar.
    """

    def __init__(
        self, canvas: Canvas, times: Sequence[date], values: Sequence[float], top: float, inset: float = 0
    ) -> None:
        self._scale = ticks(min(0.0, *values, 0.0), max(0.0, *values, 0.0))
        marks = [formatting.figure(float(value)) for value in self._scale]
        self.left = 24 + min(_MAX_LABEL_WIDTH, max(formatting.width(mark) for mark in marks)) + 8
        self.right, self.top, self.bottom = canvas.width - 28.0, top, canvas.height - 34.0
        self._start, self._end = instant(times[0]), instant(times[-1])
        self._inset = inset
        for mark, value in zip(marks, self._scale, strict=True):
            y = self.y(value)
            canvas.rule(self.left, y, self.right, y, "lb-axis" if value == 0 else "lb-grid")
            canvas.text(self.left - 8, y + 4, mark, anchor="end", kind="lb-soft", max_width=_MAX_LABEL_WIDTH)
        self._label_times(canvas, times)

    def x(self, time: date) -> float:
        """The x of a time, pixels."""
        left, right = self.left + self._inset, self.right - self._inset
        if self._end == self._start:
            return (left + right) / 2
        return left + (right - left) * (instant(time) - self._start) / (self._end - self._start)

    def y(self, value: float) -> float:
        """The y of a number, pixels."""
        low, high = self._scale[0], self._scale[-1]
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def _label_times(self, canvas: Canvas, times: Sequence[date]) -> None:
        free, step = 0.0, max(1, -(-len(times) // _MAX_LABELS))
        shown_year: int | None = None
        for time in times[::step]:
            label = formatting.moment(time, year=time.year != shown_year)
            half = formatting.width(label) / 2
            x = min(max(self.x(time), half + 4), canvas.width - half - 4)
            if x - half < free:
                continue
            canvas.text(x, self.bottom + 20, label, anchor="middle", kind="lb-soft")
            free, shown_year = x + half + 10, time.year
