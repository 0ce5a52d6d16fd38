"""`people`: who is who."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf, Class, Key, Name, Root, Url
from lakebed.cli.output import Table, print_facts, print_table

__all__ = ["register"]

_MERGE = ("id", "kind", "into", "other", "effect", "person_id", "timestamp", "confidence", "why")
_Why = Annotated[str, typer.Option(help="The reason, for the audit.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Show a person, merge two, take a merge back, and the audit.")
    for command in (show, merge, unmerge, merges):
        group.command()(command)
    app.add_typer(group, name="people")


def show(
    person: Annotated[str, typer.Argument(metavar="ID", help="A user id or an anonymous id.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """One person: all ids, traits with their history, groups, first and last seen."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        found = target.person(person, as_of or None)
    if found is None:
        raise Failure(f"nothing was ever heard of {person!r}")
    if not as_json:
        found = {fact: value for fact, value in found.items() if fact != "history"}
    print_facts(found, as_json=as_json)


def merge(
    a: Annotated[str, typer.Argument(metavar="ID", help="Whose id stays.")],
    b: Annotated[str, typer.Argument(metavar="ID", help="Who is the same person.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    why: _Why = "",
    as_json: AsJson = False,
) -> None:
    """Make one person of two. `unmerge` takes it back."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.merge(a, b, why or None), as_json=as_json)


def unmerge(
    merge_id: Annotated[str, typer.Argument(metavar="MERGE", help="Its id, as `people merges` shows it.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    why: _Why = "",
    as_json: AsJson = False,
) -> None:
    """Take a merge back, whoever said it. Events do not change."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.unmerge(merge_id, why or None), as_json=as_json)


def merges(
    person: Annotated[str, typer.Argument(metavar="[ID]", help="Those of one person; by default all.")] = "",
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The audit: who was merged when, by what, and why, or why not; newest first."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_table(Table.of(target.merges(person or None, limit), _MERGE), as_json=as_json)
