"""Panels: the same picture for each value of `by`, one below the other."""

from __future__ import annotations

from collections.abc import Callable

from lakebed.charts import formatting
from lakebed.charts.canvas import Canvas
from lakebed.charts.columns import Columns

__all__ = ["panels"]

_TALL = 2_000  # pixels; the first panel is drawn however tall it is
_HEADING = 26


def panels(
    frame: Columns, own: tuple[str, ...], picture: Callable[[Columns], tuple[Canvas, str]]
) -> tuple[Canvas, str]:
    """The picture of a frame that has the columns `own` alone, or of the rows of each value of its others."""
    by = frame.others(own)
    if not by:
        return picture(frame)
    canvas, y, parts = Canvas(), 4.0, frame.parts(by)
    said: list[str] = []
    for label, part in parts.items():
        panel, told = picture(part)
        if said and y + _HEADING + panel.height > _TALL:
            canvas.note(f"The first {len(said)} of {formatting.figure(len(parts))} values are drawn.")
            break
        canvas.text(24, y + 14, label, kind="lb-strong", room=canvas.width - 48)
        canvas.place(panel, y + _HEADING)
        y += _HEADING + panel.height + 8
        said.append(f"{label}: {told}")
    canvas.height = y
    return canvas, " ".join(said)
