"""`cohorts`: people saved under names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakebed.cli.json_argument import read_document
from lakebed.cli.options import AsJson, Class, Key, Name, Root, Url
from lakebed.cli.output import Table, print_facts, print_table

__all__ = ["register"]

_COLUMNS = ("name", "version", "savedAt", "definition")
_Cohort = Annotated[str, typer.Argument(metavar="NAME", help="The cohort's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Save people by what they did, list, show and delete such cohorts.")
    group.command("list")(listed)
    for command in (save, show, delete):
        group.command()(command)
    app.add_typer(group, name="cohorts")


def save(
    cohort: _Cohort,
    definition: Annotated[
        str, typer.Argument(help="""JSON, such as '{"did": "Order", "within": "30d"}'; @FILE or - reads it.""")
    ],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Save a cohort; a name that is there gets a new version. docs/reports/cohorts.md has the form of a definition."""
    from lakebed.clients.target import Place

    body = read_document(definition, "definition")
    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.save_cohort(cohort, body), as_json=as_json)


def listed(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """The saved cohorts, by name."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_table(Table.of(target.cohorts(), _COLUMNS), as_json=as_json)


def show(
    cohort: _Cohort,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """One cohort, and how many people are in it now. `cohort-people` lists them."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.cohort(cohort), as_json=as_json)


def delete(
    cohort: _Cohort,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Let a cohort go. Reports as of an earlier time still know it."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        target.delete_cohort(cohort)
    print_facts({"deleted": cohort}, as_json=as_json)
