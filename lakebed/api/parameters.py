"""Query parameters: whole numbers, and the refusal of unknown names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from starlette.requests import Request

from lakebed.api.errors import Refusal

__all__ = ["refuse_unknown_parameters", "whole_number"]

_IGNORED = "object"  # the key alone names the object; a client that still sends it is not refused


def whole_number(name: str, text: str, maximum: int, **details: Any) -> int:
    """The number from 1 to `maximum` that `text` is.

    Raises:
        Refusal: 400, it is not one. `details` are those of the error.
    """
    if text.isascii() and text.isdecimal() and len(text) <= len(str(maximum)) and 1 <= int(text) <= maximum:
        return int(text)
    message = f"{name} must be a whole number from 1 to {maximum}"
    raise Refusal(400, "INVALID_PARAMETER", message, **(details or {name: text[:40]}))


def refuse_unknown_parameters(request: Request, known: Collection[str]) -> None:
    """Make sure that the URL has no other parameters: without an unknown one, the answer would have another meaning.

    Raises:
        Refusal: 400, names the first unknown parameter and the known ones.
    """
    unknown = sorted(set(request.query_params) - {*known, _IGNORED})
    if unknown:
        allowed = f"it takes {', '.join(known)}" if known else "it takes none"
        message = f"There is no parameter {unknown[0][:40]!r}; {allowed}"
        raise Refusal(400, "INVALID_PARAMETER", message, parameter=unknown[0][:40])
