"""Documents as arguments: JSON itself, @FILE, or - for stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from lakebed.cli.failure import Failure

__all__ = ["read"]


def read(given: str, what: str) -> Any:
    """What `given` says; `what` it is called in errors.

    Raises:
        Failure: the file cannot be read, or it is no JSON.
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
