"""Answers: how a value becomes a response."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

__all__ = ["json_response"]


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON: structs, rows, dates and decimals included."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
