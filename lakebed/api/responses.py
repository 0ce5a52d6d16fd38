"""Responses: how values and receipts become HTTP responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from lakebed.events.event import Receipt

__all__ = ["BatchAnswer", "ReceiptAnswer", "json_response", "receipts_response"]


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
