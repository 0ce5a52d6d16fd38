"""`datasets`: which events are the rows of Analytics Engine's tables."""

from __future__ import annotations

import typer

from lakebed.cli.documents import Documents

__all__ = ["register"]

_DATASETS = Documents(
    noun="dataset",
    content="mapping",
    about="Map events to the tables of Analytics Engine's SQL; list, show and delete such mappings.",
    help={
        "list": "The saved mappings, by name.",
        "save": "Save a mapping; a name that is there gets a new version. "
        "docs/compatibility/analytics-engine.md has its form.",
        "show": "One mapping.",
        "delete": "Delete a mapping. Answers as of an earlier time still know it.",
    },
    name_help="The table's name.",
    content_help="""JSON, such as '{"event": "Order", "blobs": ["plan"]}'; @FILE or - reads it.""",
    content_of=lambda body: body,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _DATASETS.register(app)
