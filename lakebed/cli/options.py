"""The options that many commands share, each declared once, and arguments that are JSON documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Failure

__all__ = ["AsJson", "AsOf", "Class", "DryRun", "Key", "Name", "Root", "Url", "Yes", "json_object", "read_document"]

_WHERE = "Where"

Root = Annotated[
    Path, typer.Option("--root", envvar="LAKEBED_ROOT", help="Directory of the objects.", rich_help_panel=_WHERE)
]
Name = Annotated[
    str, typer.Option("--object", "-o", envvar="LAKEBED_OBJECT", help="Name of the object.", rich_help_panel=_WHERE)
]
Class = Annotated[
    str,
    typer.Option(
        "--class",
        envvar="LAKEBED_CLASS",
        metavar="MODULE:CLASS",
        help="Open the object as this class of yours, with its rollups and schedules.",
        rich_help_panel=_WHERE,
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="LAKEBED_URL", help="Ask a running server instead of opening files.", rich_help_panel=_WHERE
    ),
]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="LAKEBED_KEY",
        show_envvar=True,
        help="The server's key; better in the variable than on the command line, which others see.",
        rich_help_panel=_WHERE,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", envvar="LAKEBED_JSON", help="One JSON document on stdout, nothing else.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="LAKEBED_YES", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", envvar="LAKEBED_DRY_RUN", help="Show the effect; change nothing.")]
AsOf = Annotated[str, typer.Option(help="The answer as it was at this instant (ISO 8601).", metavar="TIME")]


def read_document(argument: str, noun: str) -> Any:
    """The JSON document of an argument: the argument itself, the file's content for `@FILE`, stdin for `-`.

    Args:
        argument: the text that was typed.
        noun: the name of the document, for errors.

    Raises:
        Failure: the document cannot be read, or is not JSON.
    """
    try:
        if argument == "-":
            argument = sys.stdin.read()
        elif argument.startswith("@"):
            argument = Path(argument[1:]).read_text("utf-8")
        return msgspec.json.decode(argument)
    except OSError as error:
        raise Failure(f"{argument} cannot be read: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(f"the {noun} is not JSON: {error}") from None


def json_object(text: str, subject: str) -> dict[str, Any]:
    """Parse `text` as a JSON object.

    Raises:
        Failure: `text` is not a JSON object; the message begins with `subject`, for example "--patch".
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failure(f"{subject} must be a JSON object: {error}") from None
