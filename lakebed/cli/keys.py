"""`keys`: the API keys of objects. The commands work beside a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from lakebed.auth.keys import Key, Keys, Limits, Scope
from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, DryRun, Name, Root, Yes
from lakebed.cli.output import approve, note, print_facts, print_table
from lakebed.clients.client import Table
from lakebed.clock import from_us

__all__ = ["register"]

_COLUMNS = ("id", "object", "scope", "note", "created", "rotated", "revoked", "limits")
_KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its id: 12 hex digits.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke keys; also beside a running server.")
    for command in (create, list_, rotate, revoke):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="keys")


def create(
    scope: Annotated[str, typer.Argument(help="write, read or admin.")],
    root: Root = Path("data"),
    name: Name = "default",
    about: Annotated[str, typer.Option("--note", help="The purpose of the key.")] = "",
    requests_per_s: Annotated[float | None, typer.Option(help="The key's own limit.")] = None,
    events_per_s: Annotated[float | None, typer.Option(help="The key's own limit.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="The key's own limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for one object. It is shown now and never again."""
    limits = Limits(requests_per_s=requests_per_s, events_per_s=events_per_s, max_body_bytes=max_body_bytes)
    with _values_checked():
        key, token = Keys(root).create(name, cast("Scope", scope), about, limits)
    _show_new(key, token, as_json=as_json)


def list_(
    root: Root = Path("data"),
    name: Annotated[
        str, typer.Option("--object", "-o", envvar="LAKEBED_OBJECT", help="Keys of one object; by default all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """All keys, without their secrets; revoked ones too."""
    records = [_facts(key) for key in Keys(root).list(name or None)]
    print_table(Table.of(records, _COLUMNS), as_json=as_json)


def rotate(
    key_id: _KeyId,
    root: Root = Path("data"),
    grace: Annotated[float, typer.Option(min=0, help="Seconds for which the old secret still counts.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret. It is shown now and never again."""
    with _values_checked():
        key, token = Keys(root).rotate(key_id, grace)
    _show_new(key, token, as_json=as_json)


def revoke(
    key_id: _KeyId, root: Root = Path("data"), dry_run: DryRun = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """End a key, for ever. A running server refuses it after a second."""
    keys = Keys(root)
    key = next((key for key in keys.list() if key.id == key_id), None)
    if key is None:
        raise Failure(f"there is no key {key_id!r} in {root}", hint="`lakebed keys list` shows all")
    if not dry_run:
        if not approve(f"Revoke the {key.scope} key {key_id} of {key.object}?", yes=yes):
            raise typer.Abort
        key = keys.revoke(key_id)
    print_facts(_facts(key) | {"dry_run": dry_run}, as_json=as_json)


def _show_new(key: Key, token: str, *, as_json: bool) -> None:
    print_facts({"key": token, **_facts(key)}, as_json=as_json)
    if not as_json:
        note("The key is shown this once. Only its hash is kept.")


def _facts(key: Key) -> dict[str, Any]:
    times = {"created": key.created_us, "rotated": key.rotated_us, "revoked": key.revoked_us}
    return {
        "id": key.id,
        "object": key.object,
        "scope": key.scope,
        "note": key.note,
        **{name: None if us is None else from_us(us) for name, us in times.items()},
        "limits": msgspec.to_builtins(key.limits),
    }


@contextmanager
def _values_checked() -> Iterator[None]:
    """Turn a ValueError of `Keys` into a Failure: a scope, name or limit is not valid."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:  # errors of our own have exit codes of their own
            raise
        raise Failure(str(error)) from None
