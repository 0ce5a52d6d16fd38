"""Chart types: how each report is drawn. Any other result is drawn by the types of its columns.

`CHARTS` has an entry for each report of `reports/reports.py`, and a test compares the two. It is separate, because a
result that came over the network is drawn by the name of its report, in a process that need not import reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

import pyarrow as pa

from lakebed.charts import formatting
from lakebed.charts.bars import bars, funnel, stacked
from lakebed.charts.canvas import Canvas
from lakebed.charts.chart import Chart, blank
from lakebed.charts.columns import Columns, panels
from lakebed.charts.line import band, lines, strip
from lakebed.charts.sankey import grid, sankey
from lakebed.events.decimals import EXACT

__all__ = ["CHARTS", "draw"]

_SESSIONS = ("sessions", "people", "events_per_session", "avg_seconds", "median_seconds", "bounce_rate", "engaged_rate")
_COHORTS = ("cohort", "period", "people", "rate")
_LIFECYCLE = ("time", "new", "returning", "resurrecting", "dormant")
_DURATIONS = ("avg_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms")
_PERFORMANCE = ("count", *_DURATIONS, "errors", "error_rate", "apdex")
_ERRORS = ("errors", "requests", "error_rate", "share", "people", "first", "last")

Drawing = tuple[Canvas, str]  # and its description
DrawFunction = Callable[[Columns], Drawing]


def draw(report: str, table: pa.Table) -> Chart:
    """The chart of a report's rows. Rows of another result are drawn by the types of their columns.

    Args:
        report: name of the report; "" if the rows are not a report's.
        table: the rows.

    Raises:
        ValueError: columns of these types cannot be drawn.
    """
    frame, title = Columns(table), report.replace("_", " ").capitalize()
    draw_rows = CHARTS.get(report)
    if draw_rows is None:
        heading, draw_rows = _by_types(frame)
        title = title or heading
    if not frame.rows:
        return blank(title)
    canvas, description = draw_rows(frame)
    return Chart(canvas, title, description)


def _by_types(frame: Columns) -> tuple[str, DrawFunction]:
    """A title and a chart for rows that are not a report's."""
    numbers = [column for column in frame.numbers if column not in frame.times]
    if frame.times and numbers:
        time, value = frame.times[0], numbers[0]
        return f"{value} by {time}", lambda frame: lines(frame, time, [value], frame.names)
    if frame.names and numbers:
        value = numbers[0]
        return f"{value} by {frame.names[0]}", lambda frame: bars(frame.labels(frame.names), frame[value])
    raise ValueError(
        f"columns {', '.join(frame.columns) or '(none)'} cannot be drawn: a line needs a column of times and one of "
        "numbers, bars need one of text and one of numbers; the result of a report has a chart of its own"
    )


def _over_time(frame: Columns, values: tuple[str, ...], by: tuple[str, ...]) -> Drawing:
    """Draw lines if there is a column `time`. If not (grain None), draw a bar for each combination of `by`."""
    if "time" in frame.columns:
        return lines(frame, "time", values, by)
    labels = frame.labels(by) if by else [values[0]] * frame.rows
    return bars(labels, frame[values[0]])


def _performance(frame: Columns) -> Drawing:
    by = frame.others(("time", *_PERFORMANCE))
    return _over_time(frame, ("p95_ms",) if by or "time" not in frame.columns else ("p50_ms", "p95_ms", "p99_ms"), by)


def _usage(frame: Columns) -> Drawing:
    """Draw sums over all periods, separately for each unit, because calls and bytes cannot be added up."""
    sums: dict[str, Decimal] = {}
    for label, quantity in zip(frame.labels(("organization_id", "sku", "unit")), frame["quantity"], strict=True):
        sums[label] = EXACT.add(sums.get(label, Decimal(0)), quantity or 0)
    canvas, description = bars(list(sums), list(sums.values()))
    if len(set(frame["unit"])) > 1:
        canvas.note("Units differ: bars of different units do not compare.")
    return canvas, description


def _funnel_times(frame: Columns) -> Drawing:
    bounds = zip(frame["from_seconds"], frame["to_seconds"], strict=True)
    return bars([f"{formatting.span(low)} to {formatting.span(high)}" for low, high in bounds], frame["people"])


def _errors(frame: Columns) -> Drawing:
    by = frame.others(_ERRORS)
    return bars(frame.labels(by) if by else ["errors"] * frame.rows, frame["errors"])


def _seconds(frame: Columns, by: tuple[str, ...]) -> Drawing:
    return bars(frame.labels(by), frame["seconds"], [formatting.span(seconds) for seconds in frame["seconds"]])


CHARTS: Mapping[str, DrawFunction] = {
    "funnel": funnel,
    "funnel_people": lambda frame: _seconds(frame, ("person_id",)),
    "funnel_times": _funnel_times,
    "retention": lambda frame: panels(frame, _COHORTS, grid),
    "lifecycle": lambda frame: panels(frame, _LIFECYCLE, stacked),
    "stickiness": lambda frame: bars(frame.labels((*frame.times, "periods")), frame["people"]),
    "sessions": lambda frame: _over_time(frame, ("sessions",), frame.others(("time", *_SESSIONS))),
    "session_list": lambda frame: _seconds(frame, ("start", "person_id")),
    "segmentation": lambda frame: _over_time(frame, ("value",), frame.others(("time", "value"))),
    "top": lambda frame: bars(frame.labels(("value",)), frame["count"]),
    "paths": sankey,
    "timeline": strip,
    "anomalies": band,
    "performance": _performance,
    "errors": _errors,
    "cohort_people": lambda frame: bars(frame.labels(("person_id",)), frame["events"]),
    "cohort_size": lambda frame: bars(["people"] * frame.rows, frame["people"]),
    "usage": _usage,
}
"""The chart of each report, by the report's name."""
