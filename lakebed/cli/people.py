"""`people`: one person, and merges of people."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf
from lakebed.cli.output import print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.clients.client import Table

__all__ = ["register"]

_MERGE = ("id", "kind", "into", "other", "effect", "person_id", "timestamp", "confidence", "why")
_Why = Annotated[str, typer.Option(help="The reason, for the audit.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Show a person, merge two, take a merge back, and the audit.")
    for command in (show, merge, unmerge, merges):
        group.command()(for_object(command))
    app.add_typer(group, name="people")


def show(
    place: Place,
    person: Annotated[str, typer.Argument(metavar="ID", help="A user id or an anonymous id.")],
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """One person: all ids, traits with their history, groups, first and last seen."""
    with place.client() as client:
        facts = msgspec.to_builtins(client.call("person", person, as_of=as_of or None))
    if facts is None:
        raise Failure(f"no event has the id {person!r}")
    if not as_json:
        facts = {fact: value for fact, value in facts.items() if fact != "history"}
    print_facts(facts, as_json=as_json)


def merge(
    place: Place,
    a: Annotated[str, typer.Argument(metavar="ID", help="The id that the person keeps.")],
    b: Annotated[str, typer.Argument(metavar="ID", help="An id of the same person.")],
    why: _Why = "",
    as_json: AsJson = False,
) -> None:
    """Make one person of two. `unmerge` takes the merge back."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("merge", a, b, why=why or None)), as_json=as_json)


def unmerge(
    place: Place,
    merge_id: Annotated[str, typer.Argument(metavar="MERGE", help="Its id, as `people merges` shows it.")],
    why: _Why = "",
    as_json: AsJson = False,
) -> None:
    """Take a merge back, whatever made it. Events do not change."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("unmerge", merge_id, why=why or None)), as_json=as_json)


def merges(
    place: Place,
    person: Annotated[str, typer.Argument(metavar="[ID]", help="Those of one person; by default all.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Merges at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The audit: merges and unmerges with time, cause, effect and reason; newest first."""
    with place.client() as client:
        records = msgspec.to_builtins(client.call("merges", person or None, limit=limit))
    print_table(Table.of(records, _MERGE), as_json=as_json)
