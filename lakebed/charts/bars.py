"""Bars from left to right: one for each name, with its number behind it."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas

__all__ = ["bars"]

_MOST = 30
_ROW = 26
_NAMES = 260  # pixels that names have at most


def bars(labels: Sequence[str], values: Sequence[object], told: Sequence[str] | None = None) -> tuple[Canvas, str]:
    """A bar for each label; `told` is what is written behind it, by default the number."""
    told = [formatting.figure(value) for value in values] if told is None else told
    canvas = Canvas()
    if len(labels) > _MOST:
        canvas.note(f"The first {_MOST} of {formatting.figure(len(labels))} rows are drawn.")
    rows = list(zip(labels, (formatting.number(value) for value in values), told, strict=True))[:_MOST]
    canvas.height = len(rows) * _ROW + 24
    names = min(_NAMES, max(formatting.width(label) for label, _, _ in rows)) + 1
    behind = max(formatting.width(text) for _, _, text in rows) + 12
    low = min(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    high = max(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    left, right = 24 + names + 12, canvas.width - 24 - behind
    whole = high - low or 1
    zero = left - (right - left) * (low / whole)
    for position, (label, value, text) in enumerate(rows):
        y = 8 + position * _ROW
        canvas.text(24 + names, y + 15, label, anchor="end", room=names)
        reach = (right - left) * ((value or 0.0) / whole)
        canvas.rect(zero + min(reach, 0), y + 2, max(abs(reach), 1), _ROW - 7, COLOURS[0], f"{label}: {text}")
        canvas.text(max(zero + reach, zero) + 8, y + 15, text, kind="lb-soft")
    canvas.rule(zero, 4, zero, canvas.height - 12, "lb-axis")
    return canvas, "; ".join(f"{label}: {text}" for label, _, text in rows[:10]) + "."
