"""`rollup`, `archive`, `compact`, `expire`, `snapshots`, `check`: the scheduled work, on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit
from lakebed.cli.objects import object_names
from lakebed.cli.options import AsJson, Class, DryRun, Root, Yes
from lakebed.cli.output import approve, note, print_facts, print_table
from lakebed.cli.place import Place, for_local_object
from lakebed.clients.client import Table
from lakebed.clock import from_us

__all__ = ["register"]

_SNAPSHOT = ("id", "committed", "operation", "rows", "watermark", "tags")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (rollup, archive, compact, expire, snapshots):
        app.command()(for_local_object(command))
    app.command()(check)


def rollup(place: Place, as_json: AsJson = False) -> None:
    """Bring all rollups up to date, and delete log files that every consumer has processed."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("rollup")), as_json=as_json)


def archive(
    place: Place,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Seconds: only events received longer ago; by default all events.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move events from the log into the Iceberg archive."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("archive", older_than)), as_json=as_json)


def compact(place: Place, as_json: AsJson = False) -> None:
    """Merge small files of the archive. No answer changes; the old files go when snapshots expire."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("compact")), as_json=as_json)


def expire(place: Place, dry_run: DryRun = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Expire old snapshots of the archive, and delete files that no snapshot needs. `as_of` answers stay."""
    with place.client() as client:
        expiry = client.call("expire", dry_run=True)
        if not dry_run:
            if expiry.snapshots and not approve(f"Expire {len(expiry.snapshots)} snapshots?", yes=yes):
                raise typer.Abort
            expiry = client.call("expire")
        garbage = client.call("collect_garbage", dry_run=dry_run)
    facts = {"snapshots": expiry.snapshots, "kept": expiry.kept, "files": garbage.paths, "bytes": garbage.bytes}
    print_facts(facts | {"dry_run": dry_run}, as_json=as_json)


def snapshots(place: Place, as_json: AsJson = False) -> None:
    """The archive's snapshots, oldest first. `query` reads one by the option --snapshot."""
    with place.client() as client:
        rows = [
            msgspec.structs.asdict(snapshot)
            # 64 bits: more than a JSON reader in JavaScript keeps
            | {"committed": from_us(snapshot.committed_us), "id": str(snapshot.id)}
            for snapshot in client.call("snapshots")
        ]
    print_table(Table.of(rows, _SNAPSHOT), as_json=as_json)


def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Objects; by default all.", metavar="[NAME]...", envvar="LAKEBED_OBJECT")
    ] = None,
    root: Root = Path("data"),
    class_name: Class = "",
    as_json: AsJson = False,
) -> None:
    """Look for broken promises in every tier. Exit code 1 if there is a problem."""
    checked = names or object_names(root)
    problems: list[dict[str, Any]] = []
    for name in checked:
        with Place(root, name, class_name).client() as client:
            problems += [{"object": name, **msgspec.structs.asdict(problem)} for problem in client.call("check")]
    if as_json or problems:
        print_table(Table.of(problems, ("object", "where", "message")), as_json=as_json)
    if problems:
        raise typer.Exit(Exit.PROBLEMS)
    if not as_json:
        note(f"No problems in {', '.join(checked) or 'no objects'}.")
