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


def figure(found: Found, unit: str) -> str:
    """A median with its unit, or why there is none."""
    if isinstance(found, Failed):
        return "absent" if found.absent else f"failed: {found.reason[:60]}"
    return f"{number(found.median)} {unit}"


def cells(row: Row) -> list[Cell]:
    """The cells of a row, each of one or more lines."""
    ours = row.lakebed
    floor = [] if row.floor is None else [figure(row.floor, row.unit), *([f"({row.floor_is})"] if row.floor_is else [])]
    return [
        [row.work],
        [figure(ours, row.unit)],
        [spread(ours)],
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
    return [f"{found} x {name}" for name in names if (found := ratio(row.lakebed, others[name]))]


def ratio(ours: Found, other: Found) -> str:
    """One figure divided by another; nothing where one of them is not there."""
    return number(ours.over(other)) if isinstance(ours, Samples) and isinstance(other, Samples) else ""


def spread(found: Found) -> str:
    """The smallest and the largest."""
    return f"{number(found.low)} to {number(found.high)}" if isinstance(found, Samples) else ""


def plain(rows: Sequence[Row]) -> str:
    """For a terminal: Lakebed's line of a row, below it the floor's and the peers'."""
    lines = [PLAIN_HEAD, *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[at]) for line in lines) for at in range(len(PLAIN_HEAD))]
    lines.insert(1, tuple("─" * width for width in widths))
    return "\n".join(_aligned(line, widths) for line in lines)


def _lines(row: Row) -> list[tuple[str, ...]]:
    others = {f"  floor: {row.floor_is}": row.floor} if row.floor is not None else {}
    others |= {f"  {name}": found for name, found in row.peers.items()}
    found = [(row.work, figure(row.lakebed, row.unit), spread(row.lakebed), "")]
    found += [(name, figure(one, row.unit), spread(one), ratio(row.lakebed, one)) for name, one in others.items()]
    goals = [(goal.text, _MARK[row.verdict(goal)]) for goal in row.goals]
    longest = max(len(found), len(goals))
    found += [("", "", "", "")] * (longest - len(found))
    goals += [("", "")] * (longest - len(goals))
    return [(*line, *goal) for line, goal in zip(found, goals, strict=True)]


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True)).rstrip()


def markdown(rows: Sequence[Row]) -> str:
    """For a page: lines of a cell are broken by <br>."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in rows:
        texts = ["<br>".join(cell).replace("|", "\\|") for cell in cells(row)]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)
