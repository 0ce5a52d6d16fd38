"""The page of figures, docs/performance.md: a marked section for each command, and a summary of all goals."""

from __future__ import annotations

from pathlib import Path

from bench.table import HEAD

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
SECTIONS = {"engine": "make bench", "server": "make bench-server", "reports": "make bench-reports"}
"""The sections of the page, and the command that writes each."""
SUMMARY = "summary"
_WRITTEN_BY = {**SECTIONS, SUMMARY: "python -m bench.page"}


def markers(section: str) -> tuple[str, str]:
    """The lines before and after the generated part of a section."""
    return f"<!-- {section}: begin, written by `{_WRITTEN_BY[section]}` -->", f"<!-- {section}: end -->"


def content(page: str, section: str) -> str:
    """The generated part of a section.

    Raises:
        ValueError: The page lacks its markers.
    """
    return _parts(page, section)[1]


def replaced(page: str, section: str, text: str) -> str:
    """`page` with the generated part of one section replaced, and the summary brought up to date.

    Raises:
        ValueError: The page lacks the markers of the section or of the summary.
    """
    return summarised(_put(page, section, text))


def summarised(page: str) -> str:
    """`page` with its summary computed from its sections: a row for each goal."""
    rows = [row for section in SECTIONS for row in _goals(page, section)]
    return _put(page, SUMMARY, "\n".join(["| | work | Lakebed | goal | met? |", "|---|---|---|---|---|", *rows]))


def _goals(page: str, section: str) -> list[str]:
    rows = []
    for line in content(page, section).splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split(" | ")]
        if len(cells) == len(HEAD) and cells[-2] and cells[0] != "work":
            shown = [f"[{section}](#{section})", cells[0], cells[1], cells[-2], cells[-1]]
            rows.append(f"| {' | '.join(shown)} |".replace("\0", "\\|"))
    return rows


def _put(page: str, section: str, text: str) -> str:
    before, _, after = _parts(page, section)
    begin, end = markers(section)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def _parts(page: str, section: str) -> tuple[str, str, str]:
    begin, end = markers(section)
    before, found_begin, rest = page.partition(begin)
    inside, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page has no {begin} … {end}: put these two lines where the table belongs")
    return before, inside.strip("\n"), after


if __name__ == "__main__":
    PAGE.write_text(summarised(PAGE.read_text("utf-8")), "utf-8")
