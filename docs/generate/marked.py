"""Replaces a marked part of a page: what stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1]


def replaced(page: Path, name: str, content: str, text: str | None = None) -> str:
    """The text of `page`, with `content` between the markers called `name`; everything else stays.

    Args:
        page: The file, which must have both markers.
        name: The name in the markers.
        content: Markdown, without blank lines around it.
        text: The text to work on, when the page has several marked parts. None reads the file.

    Raises:
        ValueError: One of the markers is missing.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, found_start, rest = (page.read_text("utf-8") if text is None else text).partition(start)
    _, found_end, tail = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(f"{page} needs the lines {start.strip()} and {end}, where the generated part belongs")
    return f"{head}{start}\n{content}\n\n{end}{tail}"
