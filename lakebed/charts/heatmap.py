"""Retention: a grid of cohorts and periods, darker where more came back, with the numbers."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["grid"]

_MOST_COHORTS = 40
_MOST_PERIODS = 24
_ROW = 28
_DARK = 0.72  # from this share on white is read more easily


def grid(frame: Columns) -> tuple[Canvas, str]:
    """A row for each cohort, a column for each period after it."""
    canvas = Canvas()
    cells = list(zip(*(frame[column] for column in ("cohort", "period", "people", "rate")), strict=True))
    cohorts, periods = sorted({cell[0] for cell in cells}), sorted({cell[1] for cell in cells})
    for found, most, noun in ((cohorts, _MOST_COHORTS, "cohorts"), (periods, _MOST_PERIODS, "periods")):
        if len(found) > most:
            canvas.note(
                f"{'The newest' if noun == 'cohorts' else 'The first'} {most} of {len(found):,} {noun} are drawn."
            )
    cohorts, periods = cohorts[-_MOST_COHORTS:], periods[:_MOST_PERIODS]
    sizes = {cohort: people for cohort, period, people, _ in cells if period == 0}
    names = max(formatting.width(formatting.moment(cohort)) for cohort in cohorts)
    left = 24 + names + 16 + 64
    wide = min(72.0, (canvas.width - left - 24) / len(periods))
    canvas.text(24, 16, "cohort", kind="lb-soft")
    canvas.text(left - 14, 16, "people", anchor="end", kind="lb-soft")
    for position, period in enumerate(periods):
        canvas.text(left + (position + 0.5) * wide, 16, formatting.figure(period), anchor="middle", kind="lb-soft")
    for row, cohort in enumerate(cohorts):
        y = 26 + row * _ROW
        canvas.text(24, y + 18, formatting.moment(cohort))
        canvas.text(left - 14, y + 18, formatting.figure(sizes.get(cohort)), anchor="end", kind="lb-strong")
    rows, columns = {c: n for n, c in enumerate(cohorts)}, {p: n for n, p in enumerate(periods)}
    for cohort, period, people, rate in cells:
        if cohort not in rows or period not in columns:
            continue
        x, y, share = left + columns[period] * wide, 26 + rows[cohort] * _ROW, formatting.number(rate) or 0.0
        told = formatting.percent(rate) if wide > 42 else formatting.figure(round(share * 100))  # noqa: PLR2004 - "99.9%"
        people_text = f"{formatting.figure(people)} people, {formatting.percent(rate)}"
        tip = f"{formatting.moment(cohort)}, period {period}: {people_text}"
        canvas.rect(x + 1, y + 1, wide - 2, _ROW - 2, COLOURS[0], tip, opacity=0.06 + 0.94 * min(share, 1))
        kind = "lb-on" if share > _DARK else ""
        canvas.text(x + wide / 2, y + 18, told, anchor="middle", kind=kind, whole=tip, size=11)
    canvas.height = 26 + len(cohorts) * _ROW + 14
    return canvas, f"{len(cohorts)} cohorts over {len(periods)} periods, from {formatting.moment(cohorts[0])}."
