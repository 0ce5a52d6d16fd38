"""The table: one row a kind of work, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence

from bench.goal import FLOOR
from bench.measure import Failed, Found, Samples
from bench.row import Row

HEAD = ("work", "Lakebed", "spread", "peers", "floor", "ratio", "goal", "met?")
PLAIN_HEAD = ("work", "figure", "spread", "ratio", "goal", "met?")
_MARK = {"met": "yes", "missed": "NO", "failed": "failed", "": ""}

Cell = list[str]


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}"


def figure(result: Found, unit: str) -> str:
    """A median with its unit, or why there is none."""
    if isinstance(result, Failed):
        return "absent" if result.absent else f"failed: {result.reason[:60]}"
    return f"{number(result.median)} {unit}"


def cells(row: Row) -> list[Cell]:
    """The cells of a row, each of one or more lines."""
    lakebed = row.lakebed
    floor = [] if row.floor is None else [figure(row.floor, row.unit), *([f"({row.floor_is})"] if row.floor_is else [])]
    return [
        [row.work],
        [figure(lakebed, row.unit)],
        [spread(lakebed)],
        [f"{name}: {figure(result, row.unit)}" for name, result in row.peers.items()],
        floor,
        ratios(row),
        [goal.text for goal in row.goals],
        [_MARK[row.verdict(goal)] for goal in row.goals],
    ]


def ratios(row: Row) -> Cell:
    """Lakebed's figure divided by each of the others, floor first."""
    others = row.others()
    names = ([FLOOR] if FLOOR in others else []) + list(row.peers)
    return [f"{quotient} x {name}" for name in names if (quotient := ratio(row.lakebed, others[name]))]


def ratio(result: Found, other: Found) -> str:
    """One figure divided by another; nothing where one of them is not there."""
    return number(result.over(other)) if isinstance(result, Samples) and isinstance(other, Samples) else ""


def spread(result: Found) -> str:
    """The smallest and the largest."""
    return f"{number(result.low)} to {number(result.high)}" if isinstance(result, Samples) else ""


def plain(rows: Sequence[Row]) -> str:
    """For a terminal: Lakebed's line of a row, below it the floor's and the peers'."""
    lines = [PLAIN_HEAD, *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(PLAIN_HEAD))]
    lines.insert(1, tuple("─" * width for width in widths))
    return "\n".join(_aligned(line, widths) for line in lines)


def _lines(row: Row) -> list[tuple[str, ...]]:
    others = {f"  floor: {row.floor_is}": row.floor} if row.floor is not None else {}
    others |= {f"  {name}": result for name, result in row.peers.items()}
    lines = [(row.work, figure(row.lakebed, row.unit), spread(row.lakebed), "")]
    lines += [
        (name, figure(result, row.unit), spread(result), ratio(row.lakebed, result)) for name, result in others.items()
    ]
    goals = [(goal.text, _MARK[row.verdict(goal)]) for goal in row.goals]
    longest = max(len(lines), len(goals))
    lines += [("", "", "", "")] * (longest - len(lines))
    goals += [("", "")] * (longest - len(goals))
    return [(*line, *goal) for line, goal in zip(lines, goals, strict=True)]


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)).rstrip()


def markdown(rows: Sequence[Row]) -> str:
    """For a page: lines of a cell are broken by <br>."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in rows:
        texts = ["<br>".join(cell).replace("|", "\\|") for cell in cells(row)]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)
