"""`keys`: who may do what to which object over a network. Works beside a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from lakebed.auth.keys import Key, Keys, Limits, Scope
from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, DryRun, Name, Root, Yes
from lakebed.cli.output import Table, approve, note, print_facts, print_table
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
    about: Annotated[str, typer.Option("--note", help="What it is for.")] = "",
    requests_per_s: Annotated[float | None, typer.Option(help="Limit of its own.")] = None,
    events_per_s: Annotated[float | None, typer.Option(help="Limit of its own.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Limit of its own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for one object. It is shown now and never again."""
    limits = Limits(requests_per_s=requests_per_s, events_per_s=events_per_s, max_body_bytes=max_body_bytes)
    with _values_said():
        key, token = Keys(root).create(name, cast("Scope", scope), about, limits)
    _show_new(key, token, as_json=as_json)


def list_(
    root: Root = Path("data"),
    name: Annotated[
        str, typer.Option("--object", "-o", envvar="LAKEBED_OBJECT", help="Those of one object; by default all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """All keys, without their secrets; revoked ones too."""
    found = [_said(key) for key in Keys(root).list(name or None)]
    print_table(Table.of(found, _COLUMNS), as_json=as_json)


def rotate(
    key_id: _KeyId,
    root: Root = Path("data"),
    grace: Annotated[float, typer.Option(min=0, help="Seconds for which the old secret still counts.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret. It is shown now and never again."""
    with _values_said():
        key, token = Keys(root).rotate(key_id, grace)
    _show_new(key, token, as_json=as_json)


def revoke(
    key_id: _KeyId, root: Root = Path("data"), dry_run: DryRun = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """End a key, for ever. A running server lets nobody in with it after a second."""
    keys = Keys(root)
    found = next((key for key in keys.list() if key.id == key_id), None)
    if found is None:
        raise Failure(f"there is no key {key_id!r} in {root}", hint="`lakebed keys list` shows all")
    if not dry_run:
        if not approve(f"Revoke the {found.scope} key {key_id} of {found.object}?", yes=yes):
            raise typer.Abort
        found = keys.revoke(key_id)
    print_facts(_said(found) | {"dry_run": dry_run}, as_json=as_json)


def _show_new(key: Key, token: str, *, as_json: bool) -> None:
    print_facts({"key": token, **_said(key)}, as_json=as_json)
    if not as_json:
        note("The key is shown this once. Only its hash is kept.")


def _said(key: Key) -> dict[str, Any]:
    times = {"created": key.created_us, "rotated": key.rotated_us, "revoked": key.revoked_us}
    return {
        "id": key.id,
        "object": key.object,
        "scope": key.scope,
        "note": key.note,
        **{name: None if us is None else from_us(us) for name, us in times.items()},
        "limits": msgspec.to_builtins(key.limits),
    }


class _values_said:  # noqa: N801 - used as a statement
    """What Keys says of a bad value, as a Failure."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if type(error) is ValueError:
            raise Failure(str(error)) from None
