"""Bar chart: a bar from left to right for each label, with its number behind it."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas

__all__ = ["bars"]

_MAX_BARS = 30
_ROW = 26
_MAX_LABEL_WIDTH = 260
_MAX_TEXT_WIDTH = 400  # a number may have 400 characters


def bars(labels: Sequence[str], values: Sequence[object], texts: Sequence[str] | None = None) -> tuple[Canvas, str]:
    """A bar for each label. `texts` are written behind the bars, by default the numbers."""
    texts = [formatting.figure(value) for value in values] if texts is None else texts
    canvas = Canvas()
    if len(labels) > _MAX_BARS:
        canvas.note(f"The first {_MAX_BARS} of {formatting.figure(len(labels))} rows are drawn.")
    rows = list(zip(labels, (formatting.number(value) for value in values), texts, strict=True))[:_MAX_BARS]
    canvas.height = len(rows) * _ROW + 24
    names = min(_MAX_LABEL_WIDTH, max(formatting.width(label) for label, _, _ in rows)) + 1
    behind = min(_MAX_TEXT_WIDTH, max(formatting.width(text) for _, _, text in rows)) + 12
    low = min(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    high = max(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    left, right = 24 + names + 12, canvas.width - 24 - behind
    whole = high - low or 1
    zero = left - (right - left) * (low / whole)
    for position, (label, value, text) in enumerate(rows):
        y = 8 + position * _ROW
        canvas.text(24 + names, y + 15, label, anchor="end", max_width=names)
        reach = (right - left) * ((value or 0.0) / whole)
        canvas.rect(zero + min(reach, 0), y + 2, max(abs(reach), 1), _ROW - 7, COLOURS[0], f"{label}: {text}")
        canvas.text(max(zero + reach, zero) + 8, y + 15, text, kind="lb-soft", max_width=_MAX_TEXT_WIDTH)
    canvas.rule(zero, 4, zero, canvas.height - 12, "lb-axis")
    return canvas, "; ".join(f"{label}: {text}" for label, _, text in rows[:10]) + "."
