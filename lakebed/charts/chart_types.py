"""Which picture a result gets."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa

from lakebed.charts import formatting
from lakebed.charts.anomaly_band import band
from lakebed.charts.bars import bars
from lakebed.charts.canvas import Canvas
from lakebed.charts.chart import Chart, blank
from lakebed.charts.columns import Columns
from lakebed.charts.event_strip import strip
from lakebed.charts.funnel import funnel
from lakebed.charts.heatmap import grid
from lakebed.charts.lifecycle_bars import stacked
from lakebed.charts.line import lines
from lakebed.charts.panels import panels
from lakebed.charts.sankey import sankey
from lakebed.events.decimals import EXACT

__all__ = ["draw"]

_SESSIONS = ("sessions", "people", "events_per_session", "avg_seconds", "median_seconds", "bounce_rate", "engaged_rate")
_COHORTS = ("cohort", "period", "people", "rate")
_LIFECYCLE = ("time", "new", "returning", "resurrecting", "dormant")
_TIMES = ("avg_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")
_PERFORMANCE = ("count", *_TIMES, "errors", "error_rate", "apdex")

Picture = tuple[Canvas, str]


def draw(report: str, table: pa.Table) -> Chart:
    """The picture of a report's rows, or of any rows by the types of their columns.

    Raises:
        ValueError: where the columns say nothing that can be drawn.
    """
    frame, title = Columns(table), report.replace("_", " ").capitalize() or "Result"
    known = _REPORTS.get(report)
    if known is None:
        heading, by_types = _typed(frame)
        title = title if report else heading
        return Chart(*_said(by_types(frame), title)) if frame.rows else blank(title)
    return Chart(*_said(known(frame), title)) if frame.rows else blank(title)


def _said(picture: Picture, title: str) -> tuple[Canvas, str, str]:
    return picture[0], title, picture[1]


def _typed(frame: Columns) -> tuple[str, Callable[[Columns], Picture]]:
    numbers = [column for column in frame.numbers if column not in frame.times]
    if frame.times and numbers:
        time, value = frame.times[0], numbers[0]
        return f"{value} by {time}", lambda one: lines(one, time, [value], one.names)
    if frame.names and numbers:
        value = numbers[0]
        return f"{value} by {frame.names[0]}", lambda one: bars(one.labels(one.names), one[value])
    raise ValueError(
        f"columns {', '.join(frame.columns) or '(none)'} cannot be drawn: a line needs a column of times and one of "
        "numbers, bars need one of text and one of numbers; a report draws itself"
    )


def _over_time(frame: Columns, values: tuple[str, ...], by: tuple[str, ...]) -> Picture:
    """Lines where there is a time, bars where a grain of None left one row for each of `by`."""
    if "time" in frame.columns:
        return lines(frame, "time", values, by)
    labels = frame.labels(by) if by else [values[0]] * frame.rows
    return bars(labels, frame[values[0]])


def _segmentation(frame: Columns) -> Picture:
    by = frame.others(("time", "value"))
    return _over_time(frame, ("value",), by)


def _performance(frame: Columns) -> Picture:
    by = frame.others(("time", *_PERFORMANCE))
    return _over_time(frame, ("p95_ms",) if by or "time" not in frame.columns else ("p50_ms", "p95_ms", "p99_ms"), by)


def _usage(frame: Columns) -> Picture:
    """Sums over all periods; of each unit their own, because calls and bytes have no sum."""
    sums: dict[str, Decimal] = {}
    for label, quantity in zip(frame.labels(("organization_id", "sku", "unit")), frame["quantity"], strict=True):
        sums[label] = EXACT.add(sums.get(label, Decimal(0)), quantity or 0)
    canvas, said = bars(list(sums), list(sums.values()))
    if len(set(frame["unit"])) > 1:
        canvas.note("Units differ: bars of different units do not compare.")
    return canvas, said


def _times(frame: Columns) -> Picture:
    bounds = zip(frame["from_seconds"], frame["to_seconds"], strict=True)
    return bars([f"{formatting.span(low)} to {formatting.span(high)}" for low, high in bounds], frame["people"])


def _errors(frame: Columns) -> Picture:
    by = frame.others(("errors", "requests", "error_rate", "share", "people", "first", "last"))
    labels = frame.labels(by) if by else ["errors"] * frame.rows
    return bars(labels, frame["errors"])


_REPORTS: dict[str, Callable[[Columns], Picture]] = {
    "funnel": funnel,
    "funnel_people": lambda one: bars(one["person_id"], one["seconds"], [formatting.span(s) for s in one["seconds"]]),
    "funnel_times": _times,
    "retention": lambda one: panels(one, _COHORTS, grid),
    "lifecycle": lambda one: panels(one, _LIFECYCLE, stacked),
    "stickiness": lambda one: bars(one.labels((*one.times, "periods")), one["people"]),
    "sessions": lambda one: _over_time(one, ("sessions",), one.others(("time", *_SESSIONS))),
    "session_list": lambda one: bars(
        one.labels(("start", "person_id")), one["seconds"], [formatting.span(s) for s in one["seconds"]]
    ),
    "segmentation": _segmentation,
    "top": lambda one: bars(one.labels(("value",)), one["count"]),
    "paths": sankey,
    "timeline": strip,
    "anomalies": band,
    "performance": _performance,
    "errors": _errors,
    "cohort_people": lambda one: bars(one["person_id"], one["events"]),
    "cohort_size": lambda one: bars(["people"] * one.rows, one["people"]),
    "usage": _usage,
}
