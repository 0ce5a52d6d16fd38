"""TrackRoutes: events in, receipts out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.body import check_count, json_object
from lakebed.api.openapi.operation import JSON, operation
from lakebed.api.responses import BatchAnswer, ReceiptAnswer, json_response, receipts_response
from lakebed.api.routes.event_requests import MAX_BATCH_EVENTS, EventRequests

__all__ = ["Batch", "EventBody", "TrackRoutes"]


class EventBody(msgspec.Struct, rename="camel"):
    """One event in Segment's names; snake_case names are accepted too, others are ignored."""

    type: Literal["track", "page", "screen", "identify", "group", "alias"] = "track"
    event: str | None = None
    user_id: str | int | None = None
    anonymous_id: str | int | None = None
    previous_id: str | int | None = None
    group_id: str | int | None = None
    session_id: str | int | None = None
    message_id: str | None = None
    timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


Batch = Annotated[
    Any,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "array", "items": {"type": "object"}},
                {"type": "object", "properties": {"batch": {"type": "array", "items": {"type": "object"}}}},
            ]
        }
    ),
]


class TrackRoutes:
    """`POST /track`, `POST /track/batch`."""

    def __init__(self, requests: EventRequests) -> None:
        self._requests = requests

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/track", self.track, methods=["POST"]), Route("/track/batch", self.batch, methods=["POST"])]

    @operation(scope="write", body=EventBody, answer=ReceiptAnswer, refusals=[507])
    async def track(self, request: Request) -> Response:
        """One event, in Segment's names or ours: its receipt, or 400 with the reason."""
        caller, body = await self._requests.read(request)
        event = await self._requests.decoded(request, caller, body, json_object)
        if any("_" in name for name in event):
            receipt = await self._requests.store(caller, event)
        else:  # in Segment's names: stored unchanged
            receipt = await self._requests.store_json(caller, body.strip())
        return json_response(ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status))

    @operation(scope="write", body={JSON: Batch, "application/x-ndjson": str}, answer=BatchAnswer, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """A JSON array, `{"batch": […]}` or NDJSON: 200 with the outcome of each. The valid ones are stored."""
        caller, body = await self._requests.read(request)
        check_count(body, MAX_BATCH_EVENTS)
        return receipts_response(await self._requests.store_batch(caller, body))
