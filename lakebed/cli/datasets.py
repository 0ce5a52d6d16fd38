"""`datasets`: which events are the rows of Analytics Engine's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakebed.cli.json_argument import read_document
from lakebed.cli.options import AsJson, Class, Key, Name, Root, Url
from lakebed.cli.output import Table, print_facts, print_table

__all__ = ["register"]

_COLUMNS = ("name", "version", "savedAt", "mapping")
_Dataset = Annotated[str, typer.Argument(metavar="NAME", help="The table's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Map events to the tables of Analytics Engine's SQL; list, show and delete such mappings.",
    )
    group.command("list")(listed)
    for command in (save, show, delete):
        group.command()(command)
    app.add_typer(group, name="datasets")


def save(
    dataset: _Dataset,
    mapping: Annotated[
        str, typer.Argument(help="""JSON, such as '{"event": "Order", "blobs": ["plan"]}'; @FILE or - reads it.""")
    ],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Save a mapping; a name that is there gets a new version. docs/compatibility/analytics-engine.md has its form."""
    from lakebed.clients.target import Place

    body = read_document(mapping, "mapping")
    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.save_dataset(dataset, body), as_json=as_json)


def listed(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """The saved mappings, by name."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_table(Table.of(target.datasets(), _COLUMNS), as_json=as_json)


def show(
    dataset: _Dataset,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """One mapping."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.dataset(dataset), as_json=as_json)


def delete(
    dataset: _Dataset,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Let a mapping go. Answers as of an earlier time still know it."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        target.delete_dataset(dataset)
    print_facts({"deleted": dataset}, as_json=as_json)
