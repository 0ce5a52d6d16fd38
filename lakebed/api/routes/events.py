"""EventRoutes: the event API of the real-time platform (`realtime-analytics-poc`), in its clients' own form."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.body import check_count, decoded, json_object
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import operation
from lakebed.api.responses import ReceiptAnswer, json_response
from lakebed.api.routes.event_requests import MAX_BATCH_EVENTS, EventRequests
from lakebed.events.event import Receipt

__all__ = ["EventRoutes"]


class PlatformEvent(msgspec.Struct, rename="camel"):
    """An event in the form of the real-time platform.

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
    """One event was accepted, with its receipt. A duplicate is accepted too."""

    success: bool
    accepted: int
    receipt: ReceiptAnswer


class Fault(msgspec.Struct):
    """Why an event of a batch was rejected."""

    index: int
    reason: str


class BatchAccepted(msgspec.Struct):
    """The outcome of a batch: `accepted + rejected` is all of it, and each rejected event has its reason."""

    success: bool
    accepted: int
    rejected: int
    errors: list[Fault]


class EventRoutes:
    """`POST /events`, `POST /events/batch`."""

    def __init__(self, requests: EventRequests) -> None:
        self._requests = requests

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/events", self.event, methods=["POST"]), Route("/events/batch", self.batch, methods=["POST"])]

    @operation(scope="write", body=PlatformEvent, answer=Accepted, refusals=[507])
    async def event(self, request: Request) -> Response:
        """One event in the platform's form, or a CloudEvent 1.0: its receipt, or 400 with the reason."""
        caller, body = await self._requests.read(request)
        event = await self._requests.decoded(request, caller, body, json_object)
        receipt = await self._requests.store_json(caller, msgspec.json.encode(mapped(event)))
        answer = ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status)
        return json_response(Accepted(success=True, accepted=1, receipt=answer))

    @operation(scope="write", body=EventsBody, answer=BatchAccepted, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """`{"events": […]}` or an array: 200 with the number of accepted events and the reason of each rejected one."""
        caller, body = await self._requests.read(request)
        check_count(body, MAX_BATCH_EVENTS)
        events = await self._requests.decoded(request, caller, body, _list_of_events)
        receipts: list[Receipt] = []
        if events:
            mapped_events = msgspec.json.encode([mapped(event) for event in events])
            receipts = await self._requests.store_batch(caller, mapped_events)
        faults = [
            Fault(index, receipt.reason or "") for index, receipt in enumerate(receipts) if receipt.status == "rejected"
        ]
        accepted = len(receipts) - len(faults)
        return json_response(BatchAccepted(not faults, accepted, len(faults), faults))


def mapped(event: Any) -> Any:
    """An event of the platform, or a CloudEvent, with the log's names; any other value unchanged.

    The platform's fields take precedence: `performance.duration` over a property `duration_ms`. Unknown names stay in
    place. A CloudEvent's `id` and `source` become the message id, so a repetition is a duplicate.
    """
    if not isinstance(event, dict):
        return event
    fields = _from_cloud_event(event) if "specversion" in event else dict(event)
    properties = fields.get("properties")
    extra: dict[str, Any] = {}
    for part, names in _PARTS.items():
        values = fields.get(part)
        if isinstance(values, dict):
            extra |= {name: values[key] for key, name in names.items() if values.get(key) is not None}
            del fields[part]
    for name in ("organizationId", "organization_id"):
        if fields.get(name) is not None:
            extra["organization_id"] = fields.pop(name)
    if extra and (properties is None or isinstance(properties, dict)):
        fields["properties"] = (properties or {}) | extra
    return fields


_PARTS = {
    "performance": {"duration": "duration_ms", "statusCode": "status_code", "status_code": "status_code"},
    "usage": {"quantity": "quantity", "unit": "unit", "sku": "sku"},
}


def _from_cloud_event(event: dict[str, Any]) -> dict[str, Any]:
    data = event.get("data")
    fields: dict[str, Any] = {"type": "track", "event": event.get("type")}
    fields["properties"] = data if isinstance(data, dict) else {} if data is None else {"data": data}
    fields["context"] = {"cloudevent": {name: value for name, value in event.items() if name not in ("data", "time")}}
    if event.get("time") is not None:
        fields["timestamp"] = event["time"]
    if event.get("id") is not None:  # unique within its source only
        fields["messageId"] = f"{event.get('source', '')}/{event['id']}"[-100:]
    if event.get("subject") is not None:
        fields["userId"] = event["subject"]
    return fields


def _list_of_events(body: bytes) -> list[Any]:
    value = decoded(body, object, "batch")
    events = value.get("events") if isinstance(value, dict) else value
    if not isinstance(events, list):
        raise Refusal(400, "INVALID_BATCH", 'The body has no list of events: send {"events": […]}')
    if len(events) > MAX_BATCH_EVENTS:
        message = f"The batch has {len(events)} events, the limit is {MAX_BATCH_EVENTS}: send it in parts"
        raise Refusal(413, "BATCH_TOO_LARGE", message, limit=MAX_BATCH_EVENTS)
    return events
