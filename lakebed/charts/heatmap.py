"""Chart of retention: a grid of cohorts and periods, darker where more people came back, with the numbers."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["grid"]

_MAX_COHORTS = 40
_MAX_PERIODS = 24
_ROW = 28
_DARK = 0.72  # from this share on, white text is easier to read


def grid(frame: Columns) -> tuple[Canvas, str]:
    """A row for each cohort, a column for each period after it."""
    canvas = Canvas()
    cells = list(zip(*(frame[column] for column in ("cohort", "period", "people", "rate")), strict=True))
    cohorts, periods = sorted({cell[0] for cell in cells}), sorted({cell[1] for cell in cells})
    if len(cohorts) > _MAX_COHORTS:
        canvas.note(f"The newest {_MAX_COHORTS} of {len(cohorts):,} cohorts are drawn.")
    if len(periods) > _MAX_PERIODS:
        canvas.note(f"The first {_MAX_PERIODS} of {len(periods):,} periods are drawn.")
    cohorts, periods = cohorts[-_MAX_COHORTS:], periods[:_MAX_PERIODS]
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
        text = formatting.percent(rate) if wide > 42 else formatting.figure(round(share * 100))  # noqa: PLR2004 - "99.9%"
        people_text = f"{formatting.figure(people)} people, {formatting.percent(rate)}"
        tip = f"{formatting.moment(cohort)}, period {period}: {people_text}"
        canvas.rect(x + 1, y + 1, wide - 2, _ROW - 2, COLOURS[0], tip, opacity=0.06 + 0.94 * min(share, 1))
        kind = "lb-on" if share > _DARK else ""
        canvas.text(x + wide / 2, y + 18, text, anchor="middle", kind=kind, whole=tip, size=11)
    canvas.height = 26 + len(cohorts) * _ROW + 14
    return canvas, f"{len(cohorts)} cohorts over {len(periods)} periods, from {formatting.moment(cohorts[0])}."
