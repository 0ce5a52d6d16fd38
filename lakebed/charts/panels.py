"""Panels: the same chart for each value of `by`, one below the other."""

from __future__ import annotations

from collections.abc import Callable

from lakebed.charts import formatting
from lakebed.charts.canvas import Canvas
from lakebed.charts.columns import Columns

__all__ = ["panels"]

_MAX_HEIGHT = 2_000  # pixels; the first panel is drawn however tall it is
_HEADING = 26


def panels(frame: Columns, own: tuple[str, ...], chart: Callable[[Columns], tuple[Canvas, str]]) -> tuple[Canvas, str]:
    """The `chart` of a frame with no columns but `own`; else a chart for each value of its other columns."""
    by = frame.others(own)
    if not by:
        return chart(frame)
    canvas, y, parts = Canvas(), 4.0, frame.parts(by)
    sentences: list[str] = []
    for label, part in parts.items():
        panel, description = chart(part)
        if sentences and y + _HEADING + panel.height > _MAX_HEIGHT:
            canvas.note(f"The first {len(sentences)} of {formatting.figure(len(parts))} values are drawn.")
            break
        canvas.text(24, y + 14, label, kind="lb-strong", max_width=canvas.width - 48)
        canvas.place(panel, y + _HEADING)
        y += _HEADING + panel.height + 8
        sentences.append(f"{label}: {description}")
    canvas.height = y
    return canvas, " ".join(sentences)
