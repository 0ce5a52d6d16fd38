"""Ingest: events in, receipts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.answer import json_response
from lakebed.api.body import Body, json_object
from lakebed.api.errors import Refusal
from lakebed.api.gate import Gate
from lakebed.events import Receipt

__all__ = ["Ingest"]


class Ingest:
    """`POST /track`, `POST /track/batch`."""

    def __init__(self, gate: Gate, body: Body) -> None:
        self._gate = gate
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/track", self.track, methods=["POST"]),
            Route("/track/batch", self.batch, methods=["POST"]),
        ]

    async def track(self, request: Request) -> Response:
        """One event, in Segment's names or ours: its receipt, or 400 with the reason."""
        caller = self._gate.admit(request, "write")
        event = json_object(await self._body.read(request))
        receipt: Receipt = (await self._gate.object(caller).batch([event], source="http"))[0]
        if receipt.status == "rejected":
            raise Refusal(400, "INVALID_EVENT", receipt.reason or "", messageId=receipt.message_id)
        return json_response({"seq": receipt.seq, "messageId": receipt.message_id, "status": receipt.status})

    async def batch(self, request: Request) -> Response:
        """A JSON array, `{"batch": […]}` or NDJSON: 200 with what became of each. The good ones are stored."""
        caller = self._gate.admit(request, "write")
        receipts = await self._gate.object(caller).batch(await self._body.read(request), source="http")
        return json_response(_summary(receipts))


def _summary(receipts: Sequence[Receipt]) -> dict[str, Any]:
    counts = Counter(receipt.status for receipt in receipts)
    return {
        "success": not counts["rejected"],
        "received": len(receipts),
        "stored": counts["stored"],
        "duplicate": counts["duplicate"],
        "rejected": counts["rejected"],
        "events": [
            {"messageId": receipt.message_id, "status": receipt.status, "seq": receipt.seq, "reason": receipt.reason}
            for receipt in receipts
        ],
    }
