"""Query parameters and responses: whole numbers in a query string; how values and receipts become HTTP responses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lakebed.api.errors import Refusal
from lakebed.events.event import Receipt

__all__ = [
    "BatchAnswer",
    "ReceiptAnswer",
    "json_response",
    "receipts_response",
    "refuse_unknown_parameters",
    "whole_number",
]


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON: structs, rows, dates and decimals included."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class ReceiptAnswer(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """The outcome of one event. Only a rejected event has a `reason`."""

    seq: int | None
    message_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    reason: str | None = None


class BatchAnswer(msgspec.Struct, gc=False):
    """The outcome of a batch: `received = stored + duplicate + rejected`, and a receipt for each, in order."""

    success: bool
    received: int
    stored: int
    duplicate: int
    rejected: int
    events: list[ReceiptAnswer]


def receipts_response(receipts: Sequence[Receipt]) -> Response:
    """200 with the outcome of each event."""
    statuses = [receipt.status for receipt in receipts]
    duplicate, rejected = statuses.count("duplicate"), statuses.count("rejected")
    stored = len(statuses) - duplicate - rejected
    events = [ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status, receipt.reason) for receipt in receipts]
    return json_response(BatchAnswer(not rejected, len(statuses), stored, duplicate, rejected, events))


_IGNORED = "object"  # a parameter that some clients send; the key alone names the object


def whole_number(name: str, text: str, maximum: int, **details: Any) -> int:
    """Parse `text` as a whole number from 1 to `maximum`.

    Raises:
        Refusal: 400, `text` is not such a number. The error has these `details`, by default `name` and `text`.
    """
    if text.isascii() and text.isdecimal() and len(text) <= len(str(maximum)) and 1 <= int(text) <= maximum:
        return int(text)
    message = f"{name} must be a whole number from 1 to {maximum}"
    raise Refusal(400, "INVALID_PARAMETER", message, **(details or {name: text[:40]}))


def refuse_unknown_parameters(request: Request, known: Collection[str]) -> None:
    """Refuse parameters of the URL that are not `known`: to ignore one would change the meaning of the answer.

    Raises:
        Refusal: 400, names the first unknown parameter and the known ones.
    """
    unknown = sorted(set(request.query_params) - {*known, _IGNORED})
    if unknown:
        allowed = f"it takes {', '.join(known)}" if known else "it takes none"
        message = f"There is no parameter {unknown[0][:40]!r}; {allowed}"
        raise Refusal(400, "INVALID_PARAMETER", message, parameter=unknown[0][:40])
