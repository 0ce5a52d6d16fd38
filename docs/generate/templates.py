"""Writes templates.md from the templates themselves, so that it cannot drift: `python docs/templates.py`."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import msgspec

from lakebed.template import Template, library

PAGE = Path(__file__).with_name("templates.md")
_HEAD = """# Templates

Named questions with parameters. This page is written by `python docs/templates.py` from the files in
`lakebed/templates/`. In Python, `await analytics.template("error-rates", start="2026-01-01")`, and
`analytics.templates()` lists them; over HTTP, `GET /templates`, `GET /templates/error-rates?start=2026-01-01` and
`POST` with an object; in a shell, `lakebed template error-rates --param start=2026-01-01`. Values are bound, never
written into SQL, and the SQL runs in the sandbox of [untrusted queries](sql-over-http.md). Each also takes `as_of`:
only what was received up to that time counts. Times are UTC, weeks start on Monday, `error_rate` is a fraction from 0
to 1, percentiles are interpolated on the line between the two values around position q(n - 1).
"""


def page() -> str:
    """The page as it must be."""
    parts = [_HEAD]
    ordered = sorted(library().values(), key=lambda one: (one.category, one.name))
    for category, templates in groupby(ordered, key=lambda one: one.category):
        parts.append(f"\n## {category[0].upper()}{category[1:]}\n")
        parts += [_section(template) for template in templates]
    return "".join(parts)


def _section(template: Template) -> str:
    lines = ["", f"### {template.name}", "", template.description, "", "| parameter | type | default | |"]
    lines.append("|---|---|---|---|")
    for one in template.parameters:
        default = "must be given" if one.default is None else f"`{msgspec.json.encode(one.default).decode()}`"
        lines.append(f"| `{one.name}` | {one.type} | {default} | {one.about} |")
    return "\n".join([*lines, "", "```sql", template.sql, "```", ""])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
