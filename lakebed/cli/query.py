"""`query`, `stats`, `dau`, `template`: questions, to an object here or to a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf, Class, Key, Name, Root, Url
from lakebed.cli.output import print_facts, print_table

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(query)
    app.command()(stats)
    app.command()(dau)
    app.command()(template)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; - reads it from stdin.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    params: Annotated[
        str, typer.Option(help="JSON: an array for `?`, an object for `$name`.", metavar="JSON", show_default=False)
    ] = "",
    as_of: AsOf = "",
    snapshot: Annotated[str, typer.Option(help="The archive as of a snapshot's id or tag.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask one SELECT over `events`, `people`, `hourly_events`, `daily_metrics` and the object's rollups."""
    from lakebed.clients.target import Place

    if snapshot and url:
        raise Failure("--snapshot is for an object that is opened here", hint="--as-of is exact at any instant")
    options = {"as_of": as_of or None, "limit": limit, "timeout": timeout}
    if snapshot:
        options["snapshot"] = int(snapshot) if snapshot.isdigit() else snapshot
    asked = sys.stdin.read() if sql == "-" else sql
    with Place(root, name, class_name, url, key).target() as target:
        found = target.query(asked, _params(params), **options)
    print_table(found, as_json=as_json)


def _params(text: str) -> Any:
    if not text:
        return None
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Failure(f"--params is not JSON: {error}") from None
    if not isinstance(found, (list, dict)):
        raise Failure("--params must be a JSON array or object")
    return found


def stats(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Live counters: events in the last minute and hour, people active now, totals."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.stats(), as_json=as_json)


def dau(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    days: Annotated[int, typer.Option(min=1, max=36_600, help="How many days, up to today.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Daily actives: a row for each day."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_table(target.dau(days), as_json=as_json)


def template(
    template_name: Annotated[str, typer.Argument(metavar="TEMPLATE", help="docs/sql.md lists them.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    param: Annotated[
        list[str], typer.Option(help="A parameter's value; may be repeated.", metavar="NAME=VALUE", show_default=False)
    ] = [],  # noqa: B006 - typer reads it, nobody changes it
    as_json: AsJson = False,
) -> None:
    """Ask a named question with parameters: `lakebed template error-rates --param start=2026-01-01`."""
    from lakebed.clients.target import Place

    params = {}
    for one in param:
        called, found, value = one.partition("=")
        if not found:
            raise Failure(f"--param {one!r} has no value", hint="Write --param NAME=VALUE")
        params[called] = value
    with Place(root, name, class_name, url, key).target() as target:
        found_rows = target.template(template_name, params)
    print_table(found_rows, as_json=as_json)
