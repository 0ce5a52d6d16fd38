"""TrackRoutes: events in, receipts out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Caller
from lakebed.api.body import Body, check_count, json_object
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import JSON, operation
from lakebed.api.responses import BatchAnswer, ReceiptAnswer, json_response, receipts_response
from lakebed.api.routes.micro_batching import MicroBatching
from lakebed.events.event import Receipt

__all__ = ["Batch", "EventBody", "TrackRoutes"]


MAX_BATCH_EVENTS = 10_000


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

    def __init__(self, auth: Auth, body: Body, micro_batching: MicroBatching) -> None:
        self._auth = auth
        self._body = body
        self._micro_batching = micro_batching

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/track", self.track, methods=["POST"]),
            Route("/track/batch", self.batch, methods=["POST"]),
        ]

    @operation(scope="write", body=EventBody, answer=ReceiptAnswer, refusals=[507])
    async def track(self, request: Request) -> Response:
        """One event, in Segment's names or ours: its receipt, or 400 with the reason."""
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        self._auth.weigh(caller, len(body))
        try:
            event = json_object(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise
        receipt = await self._store(caller, event, body)
        self._auth.charge(caller, 1)
        if receipt.status == "rejected":
            raise Refusal(400, "INVALID_EVENT", receipt.reason or "", messageId=receipt.message_id)
        return json_response(ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status))

    async def _store(self, caller: Caller, event: dict[str, Any], body: bytes) -> Receipt:
        if not any("_" in name for name in event):  # in Segment's names: stored unchanged
            return await self._micro_batching.store(caller, body.strip())
        receipts: list[Receipt] = await self._auth.object(caller).batch(
            [event], source="http", keep_refused=True, key=caller.key
        )
        return receipts[0]

    @operation(scope="write", body={JSON: Batch, "application/x-ndjson": str}, answer=BatchAnswer, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """A JSON array, `{"batch": […]}` or NDJSON: 200 with the outcome of each. The valid ones are stored."""
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        check_count(body, MAX_BATCH_EVENTS)
        self._auth.weigh(caller, len(body))
        receipts = await self._auth.object(caller).batch(body, source="http", keep_refused=True, key=caller.key)
        self._auth.charge(caller, len(receipts))
        return receipts_response(receipts)
