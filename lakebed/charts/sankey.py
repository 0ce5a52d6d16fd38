"""Charts of paths (a Sankey diagram) and of retention (a grid of cohorts and periods)."""

from __future__ import annotations

from lakebed.charts import formatting
from lakebed.charts.canvas import COLOURS, Canvas
from lakebed.charts.columns import Columns

__all__ = ["grid", "sankey"]

_MAX_LINKS = 80
_NODE = 12
_GAP = 16
_MAX_HEIGHT = 300.0

Node = tuple[int, str]


def sankey(frame: Columns) -> tuple[Canvas, str]:
    """Draw a column of events for each step, and the links between the events."""
    canvas = Canvas()
    links = sorted(
        zip(*(frame[column] for column in ("step", "source", "target", "people", "count")), strict=True),
        key=lambda link: (-link[4], link[0], str(link[1]), str(link[2])),
    )
    if len(links) > _MAX_LINKS:
        canvas.note(f"The {_MAX_LINKS} largest of {formatting.figure(len(links))} links are drawn.")
        links = links[:_MAX_LINKS]
    links = [(step, formatting.name(source), formatting.name(target), *rest) for step, source, target, *rest in links]
    outgoing: dict[Node, int] = {}
    incoming: dict[Node, int] = {}
    for step, source, target, _, count in links:
        outgoing[step, source] = outgoing.get((step, source), 0) + count
        incoming[step + 1, target] = incoming.get((step + 1, target), 0) + count
    size = {node: max(outgoing.get(node, 0), incoming.get(node, 0)) for node in outgoing | incoming}
    levels: dict[int, list[Node]] = {}
    for node in sorted(size, key=lambda node: (node[0], node[1].startswith("("), -size[node], node[1])):
        levels.setdefault(node[0], []).append(node)
    scale = _MAX_HEIGHT / (max(sum(size[node] for node in level) for level in levels.values()) or 1)
    first, last = min(levels), max(levels)
    apart = (canvas.width - 48 - 150) / max(last - first, 1)
    place: dict[Node, tuple[float, float]] = {}
    lowest = 0.0
    for step, level in levels.items():
        y = 12.0
        for node in level:
            place[node] = (24 + (step - first) * apart, y)
            y += max(size[node] * scale, 1) + _GAP
        lowest = max(lowest, y)
    _flow(canvas, links, place, scale)
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(dict.fromkeys(node[1] for node in size))}
    for node, (x, y) in place.items():
        height = max(size[node] * scale, 1)
        tip = f"{node[1]}: {formatting.figure(size[node])}"
        canvas.rect(x, y, _NODE, height, colours[node[1]], tip)
        max_width = (150 if node[0] == last else apart) - _NODE - 14
        number = formatting.figure(size[node])
        short = formatting.cut(node[1], max_width - formatting.width(f"  {number}"))
        canvas.text(x + _NODE + 6, y + max(height / 2, 2) + 4, f"{short}  {number}", whole=tip)
    canvas.height = lowest + 12
    flows = (f"{source} → {target} {formatting.figure(count)}" for _, source, target, _, count in links[:10])
    return canvas, "; ".join(flows) + "."


def _flow(
    canvas: Canvas, links: list[tuple[int, str, str, int, int]], place: dict[Node, tuple[float, float]], scale: float
) -> None:
    """Draw the links. At each node, they are in the order of the nodes at their other ends."""
    left, right = dict.fromkeys(place, 0.0), dict.fromkeys(place, 0.0)
    ends = {}
    for link in sorted(links, key=lambda link: place[link[0], link[1]][1]):
        node = (link[0] + 1, link[2])
        ends[link] = left[node]
        left[node] += link[4] * scale
    for link in sorted(links, key=lambda link: place[link[0] + 1, link[2]][1]):
        step, source, target, people, count = link
        (x1, y1), (x2, y2) = place[step, source], place[step + 1, target]
        tip = f"{source} → {target}: {formatting.figure(count)} times, {formatting.figure(people)} people"
        start = (x1 + _NODE, y1 + right[step, source])
        canvas.ribbon(start, (x2, y2 + ends[link]), max(count * scale, 0.5), "currentColor", tip)
        right[step, source] += count * scale


_MAX_COHORTS = 40
_MAX_PERIODS = 24
_ROW = 28
_DARK = 0.72  # from this share on, white text is easier to read


def grid(frame: Columns) -> tuple[Canvas, str]:
    """Draw a row for each cohort, with a column for each period from period 0 on."""
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
