"""Commands that query an object here or on a server. A report's signature makes its command: `lakebed funnel A B`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf
from lakebed.cli.output import print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.clients.client import table_of
from lakebed.interface.signature import Signature, each, kebab
from lakebed.interface.verbs import REPORT_VERBS
from lakebed.reports.reports import signature_of

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (query, stats, dau, template):
        app.command()(for_object(command))
    for name in REPORT_VERBS:
        app.command(kebab(name), rich_help_panel=_PANEL)(for_object(_command(name)))


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
        raise Failure("--snapshot cannot be used with a server", hint="Use --as-of")
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


_PANEL = "Reports"


def _command(name: str) -> Callable[..., None]:
    signature = signature_of(name)

    def command(place: Place, as_json: bool, **values: Any) -> None:
        arguments = {parameter: _argument(parameter, value, signature) for parameter, value in values.items()}
        with place.client() as client:
            table = client.table(name, **{key: value for key, value in arguments.items() if value is not None})
        print_table(table, as_json=as_json)

    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__doc__ = signature.doc.partition("\n")[0]
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by `for_object`
        [
            inspect.Parameter("place", inspect.Parameter.POSITIONAL_ONLY, annotation=Place),
            *(_parameter(parameter, signature) for parameter in signature.types),
            inspect.Parameter("as_json", keyword, annotation=AsJson, default=False),
        ]
    )
    return command


def _parameter(name: str, signature: Signature) -> inspect.Parameter:
    """The argument or option of the command for a parameter of the report."""
    kinds = each(signature.types[name])
    about = signature.about.get(name, "").replace("`", "")
    required = name not in signature.defaults
    kind: Any = str
    if any(get_origin(member) is Sequence for member in kinds):
        kind = list[str]
    elif kinds in ([int], [float], [bool]):
        kind = kinds[0]
    default = inspect.Parameter.empty if required else _default(kind, signature.defaults[name])
    if required:
        declared: Any = typer.Argument(help=about)
    else:
        declared = typer.Option(f"--{kebab(name)}", help=about, show_default=default not in (None, []))
    if kind is not list[str] and default is None:
        kind = kind | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, declared], default=default
    )


def _default(kind: Any, default: Any) -> Any:
    if kind is list[str]:
        return [] if default is None else [default] if isinstance(default, str) else list(default)
    return default if default is None or kind is not str else str(default)


def _argument(name: str, value: Any, signature: Signature) -> Any:
    """The report's argument for the value that was typed; None if no value was typed."""
    kinds = each(signature.types[name])
    if isinstance(value, list):
        # For an argument that takes several values, such as `by`, a report treats one value as a list of that value.
        return [_plain(name, item) for item in value] or None
    return value if not isinstance(value, str) else _typed(name, value, kinds)


def _typed(name: str, value: str, kinds: list[Any]) -> Any:
    if value == "":
        return None
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and value not in choices and len(kinds) == 1:
        raise Failure(f"--{kebab(name)} is {value!r}", hint=f"Use one of {', '.join(map(str, choices))}")
    return _plain(name, value)


def _plain(name: str, value: str) -> Any:
    """`value`, decoded if it begins like a JSON object: `{"event": "Order", "where": "revenue > 10"}`."""
    if not value.lstrip().startswith("{"):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise Failure(f"{name}: {value[:80]!r} is not JSON: {error}") from None
