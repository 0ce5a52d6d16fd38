"""A funnel: a bar for each step, what was lost lighter behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["funnel"]

_OWN = ("step", "event", "people", "conversion", "from_previous", "median_seconds")
_TOTALS = ("total", "total_conversion")
_MOST = 60
_ROW = 34
_NAMES = 190
_BOLD = 13.5  # a strong text is as wide as one of this size


def funnel(frame: Columns) -> tuple[Canvas, str]:
    """The steps, under a heading for each value of `by` and each period."""
    totals = _TOTALS if set(_TOTALS) <= set(frame.columns) else ()
    canvas, groups = Canvas(), frame.labels(frame.others((*_OWN, *totals)))
    times = [f"; {formatting.figure(total)} times" for total in frame["total"]] if totals else [""] * frame.rows
    rows = sorted(zip(groups, *(frame[column] for column in _OWN), times, strict=True), key=_first_seen(groups))
    if len(rows) > _MOST:
        canvas.note(f"The first {_MOST} of {formatting.figure(len(rows))} steps are drawn.")
        rows = rows[:_MOST]
    names = min(_NAMES, max(formatting.width(f"{row[1]} {row[2]}") for row in rows))
    left, right = 24 + names + 14, canvas.width - 260
    widest = max(row[3] or 0 for row in rows) or 1
    y, group, first, said = 4.0, None, 0, []
    for label, step, event, people, conversion, previous, median, total in rows:
        if label != group:
            group, first = label, people
            if label:
                canvas.text(24, y + 18, label, kind="lb-strong", room=canvas.width - 48)
                y += 28
        told = f"{formatting.figure(people)} people"
        share = formatting.percent(conversion)
        tip = f"{step}. {event}: {told}, {share} of the first step, {formatting.percent(previous)} of the step before"
        tip += total
        canvas.text(24, y + 19, f"{step} {event}", room=names)
        reach = (right - left) / widest
        canvas.rect(left, y + 3, first * reach, _ROW - 9, COLOURS[0], opacity=0.14)
        canvas.rect(left, y + 3, max(people * reach, 1), _ROW - 9, COLOURS[0], tip)
        canvas.text(left + first * reach + 10, y + 19, formatting.figure(people), kind="lb-strong")
        behind = left + first * reach + 22 + formatting.width(formatting.figure(people), _BOLD)
        soft = share if median is None else f"{share} · median {formatting.span(median)}"
        canvas.text(behind, y + 19, soft, kind="lb-soft", whole=tip)
        said.append(f"{label + ': ' if label else ''}{event} {told} ({share})")
        y += _ROW
    canvas.height = y + 12
    return canvas, "; ".join(said[:20]) + "."


def _first_seen(groups: list[str]) -> Callable[[Sequence[Any]], tuple[int, int]]:
    """The order of the groups' first rows, and of the steps in them."""
    order = {label: position for position, label in reversed(list(enumerate(groups)))}
    return lambda row: (order[row[0]], row[1])
