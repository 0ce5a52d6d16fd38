"""Charts of bars: a bar for each label, a lifecycle's people above and below a line, the steps of a funnel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Axes, Canvas
from lakebed.charts.columns import Columns

__all__ = ["bars", "funnel", "stacked"]

_MAX_BARS = 30
_BARS_ROW = 26
_MAX_LABEL_WIDTH = 260
_MAX_TEXT_WIDTH = 400  # a number may have 400 characters


def bars(labels: Sequence[str], values: Sequence[object], texts: Sequence[str] | None = None) -> tuple[Canvas, str]:
    """Draw a bar for each label. `texts` are written behind the bars; by default they are the numbers."""
    texts = [formatting.figure(value) for value in values] if texts is None else texts
    canvas = Canvas()
    if len(labels) > _MAX_BARS:
        canvas.note(f"The first {_MAX_BARS} of {formatting.figure(len(labels))} rows are drawn.")
    rows = list(zip(labels, (formatting.number(value) for value in values), texts, strict=True))[:_MAX_BARS]
    canvas.height = len(rows) * _BARS_ROW + 24
    names = min(_MAX_LABEL_WIDTH, max(formatting.width(label) for label, _, _ in rows)) + 1
    behind = min(_MAX_TEXT_WIDTH, max(formatting.width(text) for _, _, text in rows)) + 12
    low = min(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    high = max(0.0, *(value or 0.0 for _, value, _ in rows), 0.0)
    left, right = 24 + names + 12, canvas.width - 24 - behind
    whole = high - low or 1
    zero = left - (right - left) * (low / whole)
    for position, (label, value, text) in enumerate(rows):
        y = 8 + position * _BARS_ROW
        canvas.text(24 + names, y + 15, label, anchor="end", max_width=names)
        reach = (right - left) * ((value or 0.0) / whole)
        canvas.rect(zero + min(reach, 0), y + 2, max(abs(reach), 1), _BARS_ROW - 7, COLOURS[0], f"{label}: {text}")
        canvas.text(max(zero + reach, zero) + 8, y + 15, text, kind="lb-soft", max_width=_MAX_TEXT_WIDTH)
    canvas.rule(zero, 4, zero, canvas.height - 12, "lb-axis")
    return canvas, "; ".join(f"{label}: {text}" for label, _, text in rows[:10]) + "."


_PARTS = {"returning": COLOURS[0], "resurrecting": COLOURS[5], "new": COLOURS[2], "dormant": COLOURS[3]}
_MAX_PERIODS = 120


def stacked(frame: Columns) -> tuple[Canvas, str]:
    """Draw a bar for each period: returning, resurrecting and new people go up, dormant people go down."""
    canvas = Canvas()
    rows = sorted(zip(frame["time"], *(frame[part] for part in _PARTS), strict=True), key=lambda row: row[0])
    if len(rows) > _MAX_PERIODS:
        canvas.note(f"The newest {_MAX_PERIODS} of {formatting.figure(len(rows))} periods are drawn.")
        rows = rows[-_MAX_PERIODS:]
    top = canvas.legend(((part, colour, "") for part, colour in _PARTS.items()), 24, 12)
    thick = min(48.0, 700 / len(rows) * 0.72)
    values = [float(sum(row[1:4])) for row in rows] + [-float(row[4]) for row in rows]
    axes = Axes(canvas, [row[0] for row in rows], values, top, inset=thick / 2 + 8)
    for time, *counts in rows:
        x, above = axes.x(time) - thick / 2, 0.0
        for (part, colour), count in zip(_PARTS.items(), counts, strict=True):
            low, high = (-count, 0.0) if part == "dormant" else (above, above + count)
            tip = f"{formatting.moment(time)}, {part}: {formatting.figure(count)}"
            if count:
                canvas.rect(x, axes.y(high), thick, axes.y(low) - axes.y(high), colour, tip)
            above += 0 if part == "dormant" else count
    last = ", ".join(f"{part} {formatting.figure(count)}" for part, count in zip(_PARTS, rows[-1][1:], strict=True))
    return canvas, f"{len(rows)} periods; the last, {formatting.moment(rows[-1][0])}: {last}."


_COLUMNS = ("step", "event", "people", "conversion", "from_previous", "median_seconds")
_TOTALS = ("total", "total_conversion")
_MAX_STEPS = 60
_FUNNEL_ROW = 34
_MAX_NAME_WIDTH = 190
_BOLD = 13.5  # a bold text is as wide as a plain one of this size


def funnel(frame: Columns) -> tuple[Canvas, str]:
    """Draw the steps, under a heading for each value of `by` and each period."""
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
        canvas.rect(left, y + 3, first * reach, _FUNNEL_ROW - 9, COLOURS[0], opacity=0.14)
        canvas.rect(left, y + 3, max(people * reach, 1), _FUNNEL_ROW - 9, COLOURS[0], tip)
        canvas.text(left + first * reach + 10, y + 19, formatting.figure(people), kind="lb-strong")
        behind = left + first * reach + 22 + formatting.width(formatting.figure(people), _BOLD)
        soft = share if median is None else f"{share} · median {formatting.span(median)}"
        canvas.text(behind, y + 19, soft, kind="lb-soft", whole=tip)
        sentences.append(f"{label + ': ' if label else ''}{event} {people_text} ({share})")
        y += _FUNNEL_ROW
    canvas.height = y + 12
    return canvas, "; ".join(sentences[:20]) + "."


def _first_seen(groups: list[str]) -> Callable[[Sequence[Any]], tuple[int, int]]:
    """A sort key: groups are in the order of their first rows, and steps in order within their group."""
    order = {label: position for position, label in reversed(list(enumerate(groups)))}
    return lambda row: (order[row[0]], row[1])
