"""Writes the section of templates in sql.md from the templates, so that it cannot drift."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import msgspec

from docs.generate.marked import DOCS, replaced
from lakebed.query.templates.templates import Template, library

PAGE = DOCS / "sql.md"


def sections() -> str:
    """A section for each category, with each template's parameters and its SQL."""
    ordered = sorted(library().values(), key=lambda template: (template.category, template.name))
    parts = []
    for category, templates in groupby(ordered, key=lambda template: template.category):
        parts += [f"### {category[0].upper()}{category[1:]}", *map(_section, templates)]
    return "\n\n".join(parts)


def _section(template: Template) -> str:
    lines = [f"#### {template.name}", "", template.description, "", "| parameter | type | default | |"]
    lines.append("|---|---|---|---|")
    for parameter in template.parameters:
        default = "required" if parameter.default is None else f"`{msgspec.json.encode(parameter.default).decode()}`"
        lines.append(f"| `{parameter.name}` | {parameter.type} | {default} | {parameter.about} |")
    return "\n".join([*lines, "", "```sql", template.sql, "```"])


def pages() -> dict[Path, str]:
    """sql.md as it must be."""
    return {PAGE: replaced(PAGE, "templates", sections())}
