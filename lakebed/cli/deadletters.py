"""`deadletters`: what was refused, to be looked at, mended and replayed, or purged."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.options import AsJson, Class, DryRun, Key, Name, Root, Url, Yes
from lakebed.cli.output import Table, approve, print_facts, print_table

__all__ = ["register"]

_COLUMNS = ("id", "receivedAt", "reason", "source", "messageId", "tries", "size", "preview")
_Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Which ones.")]
_MOST = 1_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="List, show, replay and purge what was refused.")
    for command in (list_, show, replay, purge):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="deadletters")


def list_(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="At most so many.")] = 100,
    before: Annotated[int | None, typer.Option(help="Only those with a smaller id: the next page.")] = None,
    reason: Annotated[str, typer.Option(help="Only those whose reason has this text in it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Dead letters, newest first."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        letters = target.letters(limit=limit, before=before, reason=reason or None)
    print_table(Table.of(letters, _COLUMNS), as_json=as_json)


def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """One dead letter, with all that was sent."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        letter = target.letter(letter_id)
    print_facts({name: value for name, value in letter.items() if name != "preview"}, as_json=as_json)


def replay(
    ids: _Ids = None,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    patch: Annotated[
        str, typer.Option(metavar="JSON", help="Merged into each event, in Segment's names; null removes a field.")
    ] = "",
    text: Annotated[str, typer.Option(help="Takes the place of one letter; - reads it from stdin.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Store dead letters, as they are or mended; by default all. Each is stored once; those refused again stay."""
    from lakebed.clients.target import Place

    if text and (patch or len(ids or ()) != 1):
        raise Failure("--text takes the place of one letter", hint="Name its id, and leave --patch out")
    edit: Any = sys.stdin.read() if text == "-" else text or (_patch(patch) if patch else None)
    with Place(root, name, class_name, url, key).target() as target:
        if dry_run:
            print_table(Table.of(_chosen(target, ids), _COLUMNS), as_json=as_json)
            return
        found = target.replay(ids or None, edit)
    print_table(Table.of(found, ("id", "status", "messageId", "seq", "reason")), as_json=as_json)
    if Counter(one["status"] for one in found).keys() - {"stored", "duplicate"}:
        raise typer.Exit(Exit.PROBLEMS)


def purge(
    ids: _Ids = None,
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    before: Annotated[str, typer.Option(metavar="TIME", help="All that were refused before (ISO 8601).")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for ever: those with these ids, or all before a moment."""
    from lakebed.cli.exporting import moment
    from lakebed.clients.target import Place

    if bool(ids) == bool(before):
        raise Failure("which letters?", hint="Say their ids, or --before a moment")
    until = moment(before) if before else None
    with Place(root, name, class_name, url, key).target() as target:
        chosen = _chosen(target, ids)
        if until is not None:
            chosen = [one for one in chosen if moment(str(one["receivedAt"])) < until]
        if dry_run:
            print_table(Table.of(chosen, _COLUMNS), as_json=as_json)
            return
        if not approve(f"Delete {len(chosen):,} dead letters for ever?", yes=yes):
            raise typer.Abort
        purged = target.purge(ids or None, before=until)
    print_facts({"purged": purged}, as_json=as_json)


def _chosen(target: Any, ids: list[int] | None) -> list[dict[str, Any]]:
    """Those with these ids, or all."""
    if ids:
        return [target.letter(one) for one in ids]
    found: list[dict[str, Any]] = []
    before = None
    while page := target.letters(limit=_MOST, before=before, reason=None):
        found += page
        before = page[-1]["id"]
    return found


def _patch(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failure(f"--patch is not a JSON object: {error}") from None
