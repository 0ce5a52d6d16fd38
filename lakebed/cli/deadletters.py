"""`deadletters`: the commands that show rejected events, mend and replay them, or purge them."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.options import AsJson, DryRun, Yes, json_object
from lakebed.cli.output import approve, print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.cli.transfer import moment
from lakebed.clients.client import Client, Table, dead_letter_line
from lakebed.interface.signature import camel_keys

__all__ = ["register"]

_COLUMNS = ("id", "receivedAt", "reason", "source", "messageId", "tries", "size", "preview")
_Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Which ones.")]
_MAX_PAGE = 1_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="List, show, replay and purge rejected events.")
    for command in (list_, show, replay, purge):
        group.command(command.__name__.rstrip("_"))(for_object(command))
    app.add_typer(group, name="deadletters")


def list_(
    place: Place,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_PAGE, help="Dead letters at most.")] = 100,
    before: Annotated[int | None, typer.Option(help="Only those with a smaller id: the next page.")] = None,
    reason: Annotated[str, typer.Option(help="Only those whose reason contains this text.")] = "",
    as_json: AsJson = False,
) -> None:
    """Dead letters, newest first."""
    with place.client() as client:
        dead_letters = client.dead_letters(limit=limit, before=before, reason=reason or None)
    print_table(Table.of(dead_letters, _COLUMNS), as_json=as_json)


def show(place: Place, letter_id: Annotated[int, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """One dead letter, with all that was sent."""
    with place.client() as client:
        dead_letter = client.call("dead_letter", letter_id)
    facts = dead_letter_line(dead_letter) | {
        "raw": dead_letter.raw.decode("utf-8", "backslashreplace"),
        "cut": dead_letter.is_cut,
        "replayId": dead_letter.replay_id,
        "shared": dead_letter.shared.decode(),
    }
    print_facts({name: value for name, value in facts.items() if name != "preview"}, as_json=as_json)


def replay(
    place: Place,
    ids: _Ids = None,
    patch: Annotated[
        str, typer.Option(metavar="JSON", help="Merged into each event, in Segment's names; null removes a field.")
    ] = "",
    text: Annotated[str, typer.Option(help="Takes the place of one dead letter; - reads it from stdin.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Store dead letters, unchanged or mended; by default all. Each is stored once; one that is refused again stays."""
    if text and (patch or len(ids or ()) != 1):
        raise Failure("--text needs exactly one id and no --patch", hint="Give one id, or use --patch")
    edit: Any = sys.stdin.read() if text == "-" else text or (json_object(patch, "--patch") if patch else None)
    with place.client() as client:
        if dry_run:
            print_table(Table.of(_selected(client, ids), _COLUMNS), as_json=as_json)
            return
        replayed = client.call("replay", ids or None, edit)
    records = [camel_keys(msgspec.structs.asdict(outcome)) for outcome in replayed]
    print_table(Table.of(records, ("id", "status", "messageId", "seq", "reason")), as_json=as_json)
    if {outcome.status for outcome in replayed} - {"stored", "duplicate"}:
        raise typer.Exit(Exit.PROBLEMS)


def purge(
    place: Place,
    ids: _Ids = None,
    before: Annotated[str, typer.Option(metavar="TIME", help="All that were refused before (ISO 8601).")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for ever: those with these ids, or all before a moment."""
    if bool(ids) == bool(before):
        raise Failure("no dead letter was named", hint="Give their ids, or --before TIME")
    until = moment(before) if before else None
    with place.client() as client:
        selected = _selected(client, ids, until)
        if dry_run:
            print_table(Table.of(selected, _COLUMNS), as_json=as_json)
            return
        if not approve(f"Delete {len(selected):,} dead letters for ever?", yes=yes):
            raise typer.Abort
        purged = client.call("purge", ids or None, before=until)
    print_facts({"purged": purged}, as_json=as_json)


def _selected(client: Client, ids: list[int] | None, until: datetime | None = None) -> list[dict[str, Any]]:
    """The dead letters with these ids; without ids, all that were refused before `until`, by default all."""
    if ids:
        return [dead_letter_line(client.call("dead_letter", letter_id)) for letter_id in ids]
    dead_letters: list[dict[str, Any]] = []
    before = None
    while page := client.dead_letters(limit=_MAX_PAGE, before=before, reason=None):
        dead_letters += page
        before = page[-1]["id"]
    return [
        dead_letter for dead_letter in dead_letters if until is None or moment(str(dead_letter["receivedAt"])) < until
    ]
