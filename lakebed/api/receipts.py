"""Receipts: what became of the events of a request, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from starlette.responses import Response

from lakebed.api.responses import json_response
from lakebed.events.event import Receipt

__all__ = ["BatchAnswer", "ReceiptAnswer", "receipts_response"]


class ReceiptAnswer(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What became of one event. `reason` is there only of one that was rejected."""

    seq: int | None
    message_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    reason: str | None = None


class BatchAnswer(msgspec.Struct, gc=False):
    """What became of a batch: `received = stored + duplicate + rejected`, and a receipt for each, in order."""

    success: bool
    received: int
    stored: int
    duplicate: int
    rejected: int
    events: list[ReceiptAnswer]


def receipts_response(receipts: Sequence[Receipt]) -> Response:
    """200 with what became of each event."""
    statuses = [receipt.status for receipt in receipts]
    duplicate, rejected = statuses.count("duplicate"), statuses.count("rejected")
    stored = len(statuses) - duplicate - rejected
    told = [ReceiptAnswer(one.seq, one.message_id, one.status, one.reason) for one in receipts]
    return json_response(BatchAnswer(not rejected, len(statuses), stored, duplicate, rejected, told))
