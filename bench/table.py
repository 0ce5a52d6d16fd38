"""The table: one row a kind of work, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from bench.goal import FLOOR
from bench.measure import Failed, Found, Samples
from bench.row import Row

HEAD = ("work", "Lakebed", "spread", "peers", "floor", "ratio", "goal", "met?")
_MARK = {"met": "yes", "missed": "NO", "failed": "failed", "": ""}

Cell = list[str]


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}"


def figure(found: Found, unit: str) -> str:
    """A median with its unit, or why there is none."""
    if isinstance(found, Failed):
        return "absent" if found.absent else f"failed: {found.reason[:60]}"
    return f"{number(found.median)} {unit}"


def cells(row: Row) -> list[Cell]:
    """The cells of a row, each of one or more lines."""
    ours = row.lakebed
    spread = [f"{number(ours.low)} to {number(ours.high)}"] if isinstance(ours, Samples) else []
    floor = [] if row.floor is None else [figure(row.floor, row.unit), *([f"({row.floor_is})"] if row.floor_is else [])]
    return [
        [row.work],
        [figure(ours, row.unit)],
        spread,
        [f"{name}: {figure(found, row.unit)}" for name, found in row.peers.items()],
        floor,
        ratios(row),
        [goal.text for goal in row.goals],
        [_MARK[row.verdict(goal)] for goal in row.goals],
    ]


def ratios(row: Row) -> Cell:
    """Lakebed's figure divided by each of the others, floor first."""
    others = row.others()
    names = ([FLOOR] if FLOOR in others else []) + list(row.peers)
    return [
        f"{number(row.lakebed.over(others[name]))} x {name}"
        for name in names
        if isinstance(row.lakebed, Samples) and isinstance(others[name], Samples)
    ]


def plain(rows: Sequence[Row]) -> str:
    """For a terminal: aligned columns."""
    found = [cells(row) for row in rows]
    widths = [max([len(HEAD[at]), *(len(line) for row in found for line in row[at])]) for at in range(len(HEAD))]
    lines = [_line(HEAD, widths), _line(["─" * width for width in widths], widths)]
    for row in found:
        lines += [_line(texts, widths) for texts in zip_longest(*row, fillvalue="")]
    return "\n".join(lines)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)).rstrip()


def markdown(rows: Sequence[Row]) -> str:
    """For a page: lines of a cell are broken by <br>."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in rows:
        texts = ["<br>".join(cell).replace("|", "\\|") for cell in cells(row)]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)
