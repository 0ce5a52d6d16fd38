"""Writes the list of decisions from their titles, so that none is left out."""

from __future__ import annotations

from pathlib import Path

from docs.generate.marked import DOCS, replaced

FOLDER = DOCS / "decisions"
INDEX = FOLDER / "index.md"


def table() -> str:
    """A row for each decision: its number and its title."""
    lines = ["| | |", "|---|---|"]
    for page in sorted(FOLDER.glob("[0-9]*.md")):
        number, _, title = page.read_text("utf-8").partition("\n")[0].removeprefix("# ").partition(": ")
        lines.append(f"| [{number}]({page.name}) | {title} |")
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """The index of decisions as it must be."""
    return {INDEX: replaced(INDEX, "decisions", table())}
