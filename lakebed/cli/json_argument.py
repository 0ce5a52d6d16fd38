"""JSON arguments: as text, from a file or from stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from lakebed.cli.exit_codes import Failure

__all__ = ["json_object", "read_document"]


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
    """The JSON object that `text` is.

    Raises:
        Failure: `text` is not a JSON object; the message begins with `subject` ("--patch is", for example).
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failure(f"{subject} not a JSON object: {error}") from None
