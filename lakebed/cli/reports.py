"""The reports, each a command made of its signature: `lakebed funnel Signup Purchase --within 7d`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson
from lakebed.cli.output import print_table
from lakebed.cli.place import Place, for_object
from lakebed.interface.signature import Signature, each, kebab
from lakebed.interface.verbs import REPORT_VERBS
from lakebed.reports.catalog import signature_of

__all__ = ["register"]

_PANEL = "Reports"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name in REPORT_VERBS:
        app.command(kebab(name), rich_help_panel=_PANEL)(for_object(_command(name)))


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
    """The report's argument for the value that was typed; None if none was."""
    kinds = each(signature.types[name])
    if isinstance(value, list):
        # One value where there may be several, as in `by`, means the same to the report as a list of it.
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
    """`value` itself, or the JSON object where it begins like one: `{"event": "Order", "where": "revenue > 10"}`."""
    if not value.lstrip().startswith("{"):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise Failure(f"{name}: {value[:80]!r} is not JSON: {error}") from None
