"""The reports, each a command made of its signature: `lakebed funnel Signup Purchase --within 7d`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, Class, Key, Name, Root, Url
from lakebed.cli.output import print_table
from lakebed.interface.signature import Signature, each
from lakebed.reports.catalog import REPORTS, signature_of

__all__ = ["register"]

_PANEL = "Reports"
_WHERE: dict[str, tuple[Any, Any]] = {
    "root": (Root, Path("data")),
    "object_name": (Name, "default"),
    "class_name": (Class, ""),
    "url": (Url, ""),
    "key": (Key, ""),
    "as_json": (AsJson, False),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name in REPORTS:
        app.command(name.replace("_", "-"), rich_help_panel=_PANEL)(_command(name))


def _command(name: str) -> Callable[..., None]:
    signature = signature_of(name)

    def command(**given: Any) -> None:
        from lakebed.clients.target import Place

        place = Place(*(given.pop(one) for one in ("root", "object_name", "class_name", "url", "key")))
        as_json = given.pop("as_json")
        arguments = {one: _read(one, value, signature) for one, value in given.items()}
        with place.target() as target:
            found = target.report(name, {one: value for one, value in arguments.items() if value is not None})
        print_table(found, as_json=as_json)

    command.__doc__ = (inspect.getdoc(REPORTS[name]) or "").partition("\n")[0]
    parameters = [_parameter(one, signature) for one in signature.types]
    parameters += [
        inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for one, (kind, default) in _WHERE.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _parameter(name: str, signature: Signature) -> inspect.Parameter:
    """An argument or option of the command for a parameter of the report."""
    kinds = each(signature.types[name])
    about = signature.about.get(name, "").replace("`", "")
    required = name not in signature.defaults
    kind: Any = str
    if any(get_origin(one) is Sequence for one in kinds):
        kind = list[str]
    elif kinds in ([int], [float], [bool]):
        kind = kinds[0]
    default = inspect.Parameter.empty if required else _default(kind, signature.defaults[name])
    if required:
        declared: Any = typer.Argument(help=about)
    else:
        option = f"--{name.replace('_', '-')}"
        declared = typer.Option(option, help=about, show_default=default not in (None, []))
    if kind is not list[str] and default is None:
        kind = kind | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, declared], default=default
    )


def _default(kind: Any, default: Any) -> Any:
    if kind is list[str]:
        return [] if default is None else [default] if isinstance(default, str) else list(default)
    return default if default is None or kind is not str else str(default)


def _read(name: str, value: Any, signature: Signature) -> Any:
    """What a report is given for what was typed; None for what was not."""
    kinds = each(signature.types[name])
    if isinstance(value, list):
        found = [_plain(name, one) for one in value]
        # One value for what may be one or several, as in `by`: it is the same to the report.
        return found or None
    return value if not isinstance(value, str) else _typed(name, value, kinds)


def _typed(name: str, value: str, kinds: list[Any]) -> Any:
    if value == "":
        return None
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and value not in choices and len(kinds) == 1:
        raise Failure(f"--{name.replace('_', '-')} is {value!r}", hint=f"Use one of {', '.join(map(str, choices))}")
    return _plain(name, value)


def _plain(name: str, value: str) -> Any:
    """Text, or what JSON says where it begins like an object: `{"event": "Order", "where": "revenue > 10"}`."""
    if not value.lstrip().startswith("{"):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise Failure(f"{name}: {value[:80]!r} is no JSON: {error}") from None
