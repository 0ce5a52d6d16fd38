"""Chart of a funnel: a bar for each step, in front of a lighter bar of the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["funnel"]

_COLUMNS = ("step", "event", "people", "conversion", "from_previous", "median_seconds")
_TOTALS = ("total", "total_conversion")
_MAX_STEPS = 60
_ROW = 34
_MAX_NAME_WIDTH = 190
_BOLD = 13.5  # a bold text is as wide as a plain one of this size


def funnel(frame: Columns) -> tuple[Canvas, str]:
    """The steps, under a heading for each value of `by` and each period."""
    totals = _TOTALS if set(_TOTALS) <= set(frame.columns) else ()
    canvas, groups = Canvas(), frame.labels(frame.others((*_COLUMNS, *totals)))
    times = [f"; {formatting.figure(total)} times" for total in frame["total"]] if totals else [""] * frame.rows
    rows = sorted(zip(groups, *(frame[column] for column in _COLUMNS), times, strict=True), key=_first_seen(groups))
    if len(rows) > _MAX_STEPS:
        canvas.note(f"The first {_MAX_STEPS} of {formatting.figure(len(rows))} steps are drawn.")
        rows = rows[:_MAX_STEPS]
    names = min(_MAX_NAME_WIDTH, max(formatting.width(f"{row[1]} {row[2]}") for row in rows))
    left, right = 24 + names + 14, canvas.width - 260
    widest = max(row[3] or 0 for row in rows) or 1
    y, group, first, sentences = 4.0, None, 0, []
    for label, step, event, people, conversion, previous, median, total in rows:
        if label != group:
            group, first = label, people
            if label:
                canvas.text(24, y + 18, label, kind="lb-strong", max_width=canvas.width - 48)
                y += 28
        people_text = f"{formatting.figure(people)} people"
        share = formatting.percent(conversion)
        shares = f"{share} of the first step, {formatting.percent(previous)} of the step before"
        tip = f"{step}. {event}: {people_text}, {shares}{total}"
        canvas.text(24, y + 19, f"{step} {event}", max_width=names)
        reach = (right - left) / widest
        canvas.rect(left, y + 3, first * reach, _ROW - 9, COLOURS[0], opacity=0.14)
        canvas.rect(left, y + 3, max(people * reach, 1), _ROW - 9, COLOURS[0], tip)
        canvas.text(left + first * reach + 10, y + 19, formatting.figure(people), kind="lb-strong")
        behind = left + first * reach + 22 + formatting.width(formatting.figure(people), _BOLD)
        soft = share if median is None else f"{share} · median {formatting.span(median)}"
        canvas.text(behind, y + 19, soft, kind="lb-soft", whole=tip)
        sentences.append(f"{label + ': ' if label else ''}{event} {people_text} ({share})")
        y += _ROW
    canvas.height = y + 12
    return canvas, "; ".join(sentences[:20]) + "."


def _first_seen(groups: list[str]) -> Callable[[Sequence[Any]], tuple[int, int]]:
    """A sort key: the groups in the order of their first rows, and the steps within them."""
    order = {label: position for position, label in reversed(list(enumerate(groups)))}
    return lambda row: (order[row[0]], row[1])
