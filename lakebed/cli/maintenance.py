"""`rollup`, `archive`, `compact`, `expire`, `snapshots`, `check`: the scheduled work, on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit
from lakebed.cli.options import AsJson, Class, DryRun, Name, Root, Yes
from lakebed.cli.output import Table, approve, note, print_facts, print_table
from lakebed.clock import from_us

__all__ = ["register"]

_SNAPSHOT = ("id", "committed", "operation", "rows", "watermark", "tags")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (rollup, archive, compact, expire, snapshots, check):
        app.command()(command)


def rollup(root: Root = Path("data"), name: Name = "default", class_name: Class = "", as_json: AsJson = False) -> None:
    """Bring all rollups up to date, and let the log go where everything has passed it."""
    with _opened(root, name, class_name) as found:
        print_facts(msgspec.to_builtins(found.rollup()), as_json=as_json)


def archive(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Seconds: only what was received longer ago; by default everything.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move events from the log into the Iceberg archive."""
    with _opened(root, name, class_name) as found:
        print_facts(msgspec.to_builtins(found.archive(older_than)), as_json=as_json)


def compact(root: Root = Path("data"), name: Name = "default", class_name: Class = "", as_json: AsJson = False) -> None:
    """Merge small files of the archive. No answer changes; the old files go when snapshots expire."""
    with _opened(root, name, class_name) as found:
        print_facts(msgspec.to_builtins(found.compact()), as_json=as_json)


def expire(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Expire old snapshots of the archive, and delete files that no snapshot needs. `as_of` answers stay."""
    with _opened(root, name, class_name) as found:
        would = found.expire(dry_run=True)
        if not dry_run and would.snapshots and not approve(f"Expire {len(would.snapshots)} snapshots?", yes=yes):
            raise typer.Abort
        expired = would if dry_run else found.expire()
        garbage = found.collect_garbage(dry_run=dry_run)
    facts = {"snapshots": expired.snapshots, "kept": expired.kept, "files": garbage.paths, "bytes": garbage.bytes}
    print_facts(facts | {"dry_run": dry_run}, as_json=as_json)


def snapshots(
    root: Root = Path("data"), name: Name = "default", class_name: Class = "", as_json: AsJson = False
) -> None:
    """The archive's snapshots, oldest first. `query` reads one by the option --snapshot."""
    with _opened(root, name, class_name) as found:
        rows = [msgspec.structs.asdict(one) | {"committed": from_us(one.committed_us)} for one in found.snapshots()]
    for row in rows:
        row["id"] = str(row["id"])  # 64 bits: more than a JSON reader in JavaScript keeps
    print_table(Table.of(rows, _SNAPSHOT), as_json=as_json)


def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Objects; by default all.", metavar="[NAME]...", envvar="LAKEBED_OBJECT")
    ] = None,
    root: Root = Path("data"),
    class_name: Class = "",
    as_json: AsJson = False,
) -> None:
    """Look for what is not as promised, in every tier. Exit code 1 if there is something."""
    from lakebed.cli.objects import object_names

    asked = names or object_names(root)
    problems: list[dict[str, Any]] = []
    for name in asked:
        with _opened(root, name, class_name) as found:
            problems += [{"object": name, **msgspec.structs.asdict(problem)} for problem in found.check()]
    if as_json or problems:
        print_table(Table.of(problems, ("object", "where", "message")), as_json=as_json)
    if problems:
        raise typer.Exit(Exit.PROBLEMS)
    if not as_json:
        note(f"No problems in {', '.join(asked) or 'no objects'}.")


def _opened(root: Path, name: str, class_name: str) -> Any:
    from lakebed.clients.target import Place

    return Place(root, name, class_name).local()
