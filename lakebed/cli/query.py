"""`query`, `stats`, `dau`, `template`: questions to an object here or on a server."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf
from lakebed.cli.output import print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.clients.client import table_of

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (query, stats, dau, template):
        app.command()(for_object(command))


def query(
    place: Place,
    sql: Annotated[str, typer.Argument(help="One SELECT; - reads it from stdin.")],
    params: Annotated[
        str, typer.Option(help="JSON: an array for `?`, an object for `$name`.", metavar="JSON", show_default=False)
    ] = "",
    as_of: AsOf = "",
    snapshot: Annotated[str, typer.Option(help="The archive as of a snapshot's id or tag.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run one SELECT over `events`, `people`, `hourly_events`, `daily_metrics` and the object's rollups."""
    if snapshot and place.url:
        raise Failure("--snapshot is for an object that is opened here", hint="--as-of is exact at any instant")
    options: dict[str, Any] = {"as_of": as_of or None, "limit": limit, "timeout": timeout}
    if snapshot:
        options["snapshot"] = int(snapshot) if snapshot.isdigit() else snapshot
    statement = sys.stdin.read() if sql == "-" else sql
    with place.client() as client:
        table = client.table("query", statement, _params(params), **options)
    print_table(table, as_json=as_json)


def _params(text: str) -> Any:
    if not text:
        return None
    try:
        params = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Failure(f"--params is not JSON: {error}") from None
    if not isinstance(params, (list, dict)):
        raise Failure("--params must be a JSON array or object")
    return params


def stats(place: Place, as_json: AsJson = False) -> None:
    """Live counters: events in the last minute and hour, people active now, totals."""
    with place.client() as client:
        print_facts(msgspec.to_builtins(client.call("stats")), as_json=as_json)


def dau(
    place: Place,
    days: Annotated[int, typer.Option(min=1, max=36_600, help="How many days, up to today.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Daily actives: a row for each day."""
    with place.client() as client:
        print_table(table_of(client.call("dau", days)), as_json=as_json)


def template(
    place: Place,
    template_name: Annotated[str, typer.Argument(metavar="TEMPLATE", help="docs/sql.md lists them.")],
    param: Annotated[
        list[str], typer.Option(help="A parameter's value; may be repeated.", metavar="NAME=VALUE", show_default=False)
    ] = [],  # noqa: B006 - typer reads it; no code changes it
    as_json: AsJson = False,
) -> None:
    """Run a named query with parameters: `lakebed template error-rates --param start=2026-01-01`."""
    params = {}
    for text in param:
        name, separator, value = text.partition("=")
        if not separator:
            raise Failure(f"--param {text!r} has no value", hint="Write --param NAME=VALUE")
        params[name] = value
    with place.client() as client:
        table = client.table("template", template_name, params)
    print_table(table, as_json=as_json)
