"""Document: JSON that a command is given, as text, in a file or from another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from lakebed.cli.exit_codes import Failure

__all__ = ["read_document"]


def read_document(given: str, what: str) -> Any:
    """The JSON of `given`: itself, of a file for `@FILE`, or of stdin for `-`.

    Raises:
        Failure: it cannot be read; `what` is what it should be.
    """
    try:
        if given == "-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            given = Path(given[1:]).read_text("utf-8")
        return msgspec.json.decode(given)
    except OSError as error:
        raise Failure(f"{given} cannot be read: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(f"the {what} is no JSON: {error}") from None
