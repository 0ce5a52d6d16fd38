"""`cohorts`: people saved under names."""

from __future__ import annotations

from typing import Any

import typer

from lakebed.cli.documents import Documents
from lakebed.clients.client import Client

__all__ = ["register"]


def _size(client: Client, name: str) -> dict[str, Any]:
    return {"people": client.table("cohort_size", cohort=name).rows[0][0]}


_COHORTS = Documents(
    noun="cohort",
    content="definition",
    about="Save people by what they did, list, show and delete such cohorts.",
    help={
        "list": "The saved cohorts, by name.",
        "save": "Save a cohort; a name that is there gets a new version. "
        "docs/reports/cohorts.md has the form of a definition.",
        "show": "One cohort, and how many people are in it now. `cohort-people` lists them.",
        "delete": "Delete a cohort. Reports as of an earlier time still know it.",
    },
    name_help="The cohort's name.",
    content_help="""JSON, such as '{"did": "Order", "within": "30d"}'; @FILE or - reads it.""",
    content_of=lambda body: body["definition"],
    more=_size,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _COHORTS.register(app)
