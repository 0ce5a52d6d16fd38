"""Events: the event API of the real-time platform, in the shape that its clients send."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, check_count, decoded, json_object
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import operation
from lakebed.api.responses import ReceiptAnswer, json_response
from lakebed.api.routes.micro_batching import MicroBatching
from lakebed.api.routes.track import MAX_BATCH_EVENTS
from lakebed.events.event import Receipt

__all__ = ["EventRoutes"]


class PlatformEvent(msgspec.Struct, rename="camel"):
    """An event as the real-time platform has it.

    Attributes:
        performance: `duration` in milliseconds and `statusCode`: the properties `duration_ms` and `status_code`.
        usage: `quantity`, `unit` and `sku`: the properties of these names.
        organization_id: the property `organization_id`.
    """

    event: str
    user_id: str | int | None = None
    organization_id: str | None = None
    session_id: str | int | None = None
    anonymous_id: str | int | None = None
    message_id: str | None = None
    timestamp: str | int | float | None = None
    properties: dict[str, Any] | None = None
    performance: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class EventsBody(msgspec.Struct):
    """Events of one request."""

    events: list[PlatformEvent]


class Accepted(msgspec.Struct):
    """One event was taken; its receipt says where. One that was there already is accepted too."""

    success: bool
    accepted: int
    receipt: ReceiptAnswer


class Fault(msgspec.Struct):
    """Why an event of a batch was rejected."""

    index: int
    reason: str


class BatchAccepted(msgspec.Struct):
    """What became of a batch: `accepted + rejected` are all of it, and each that was rejected has its reason."""

    success: bool
    accepted: int
    rejected: int
    errors: list[Fault]


class EventRoutes:
    """`POST /events`, `POST /events/batch`."""

    def __init__(self, auth: Auth, body: Body, gathering: MicroBatching) -> None:
        self._auth = auth
        self._body = body
        self._gathering = gathering

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/events", self.one, methods=["POST"]),
            Route("/events/batch", self.batch, methods=["POST"]),
        ]

    @operation(scope="write", body=PlatformEvent, answer=Accepted, refusals=[507])
    async def one(self, request: Request) -> Response:
        """One event in the platform's shape, or a CloudEvent 1.0: its receipt, or 400 with the reason."""
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        self._auth.weigh(caller, len(body))
        try:
            event = json_object(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise
        receipt = await self._gathering.store(caller, msgspec.json.encode(mapped(event)))
        self._auth.charge(caller, 1)
        if receipt.status == "rejected":
            raise Refusal(400, "INVALID_EVENT", receipt.reason or "", messageId=receipt.message_id)
        return json_response(Accepted(success=True, accepted=1, receipt=_told(receipt)))

    @operation(scope="write", body=EventsBody, answer=BatchAccepted, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """`{"events": […]}` or an array: 200 with how many were taken, and why each other was not."""
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        self._auth.weigh(caller, len(body))
        check_count(body, MAX_BATCH_EVENTS)
        try:
            events = _listed(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise
        receipts: list[Receipt] = []
        if events:
            sent = msgspec.json.encode([mapped(event) for event in events])
            receipts = await self._auth.object(caller).batch(sent, source="http", keep_refused=True, key=caller.key)
        self._auth.charge(caller, len(receipts))
        faults = [Fault(at, one.reason or "") for at, one in enumerate(receipts) if one.status == "rejected"]
        accepted = len(receipts) - len(faults)
        return json_response(BatchAccepted(not faults, accepted, len(faults), faults))


def mapped(event: Any) -> Any:
    """An event of the platform, or a CloudEvent, in the names that the log takes; anything else as it is.

    What is there twice counts where the platform has it: `performance.duration` goes before a property `duration_ms`.
    Names that neither knows stay where they are. A CloudEvent's `id` makes a repetition a duplicate, with its `source`.
    """
    if not isinstance(event, dict):
        return event
    found = _from_cloud(event) if "specversion" in event else dict(event)
    given = found.get("properties")
    extra: dict[str, Any] = {}
    for part, names in _PARTS.items():
        values = found.get(part)
        if isinstance(values, dict):
            extra |= {name: values[key] for key, name in names.items() if values.get(key) is not None}
            del found[part]
    for name in ("organizationId", "organization_id"):
        if found.get(name) is not None:
            extra["organization_id"] = found.pop(name)
    if extra and (given is None or isinstance(given, dict)):
        found["properties"] = (given or {}) | extra
    return found


_PARTS = {
    "performance": {"duration": "duration_ms", "statusCode": "status_code", "status_code": "status_code"},
    "usage": {"quantity": "quantity", "unit": "unit", "sku": "sku"},
}


def _from_cloud(event: dict[str, Any]) -> dict[str, Any]:
    data = event.get("data")
    found: dict[str, Any] = {"type": "track", "event": event.get("type")}
    found["properties"] = data if isinstance(data, dict) else {} if data is None else {"data": data}
    found["context"] = {"cloudevent": {name: one for name, one in event.items() if name not in ("data", "time")}}
    if event.get("time") is not None:
        found["timestamp"] = event["time"]
    if event.get("id") is not None:  # unique for its source only
        found["messageId"] = f"{event.get('source', '')}/{event['id']}"[-100:]
    if event.get("subject") is not None:
        found["userId"] = event["subject"]
    return found


def _listed(body: bytes) -> list[Any]:
    found = decoded(body, object, "batch")
    events = found.get("events") if isinstance(found, dict) else found
    if not isinstance(events, list):
        raise Refusal(400, "INVALID_BATCH", 'The body has no list of events: send {"events": […]}')
    if len(events) > MAX_BATCH_EVENTS:
        message = f"The batch has {len(events)} events, the limit is {MAX_BATCH_EVENTS}: send it in parts"
        raise Refusal(413, "BATCH_TOO_LARGE", message, limit=MAX_BATCH_EVENTS)
    return events


def _told(receipt: Receipt) -> ReceiptAnswer:
    return ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status, receipt.reason)
