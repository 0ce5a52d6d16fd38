"""Routes that store events: `/track` in Segment's names or ours, and the event API of the real-time platform."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Caller
from lakebed.api.body import Body, check_count, decoded, json_object
from lakebed.api.errors import Refusal
from lakebed.api.openapi.document import JSON, operation
from lakebed.api.responses import BatchAnswer, ReceiptAnswer, json_response, receipts_response
from lakebed.events.event import Receipt

__all__ = ["Batch", "EventBody", "EventRequests", "EventRoutes", "MicroBatching", "TrackRoutes"]

_Waiting = tuple[bytes, str | None, asyncio.Future[Receipt]]  # an event, its key, its receipt
_MAX_EVENTS = 1_000  # the most events that are stored in one call


class MicroBatching:
    """Joins single events into one batch per object.

    Events of one turn of the event loop go together, and so do events that arrive while the previous batch is stored.
    The fixed cost of a batch (Arrow arrays, a call of the object, a commit) is then paid once for all: 64 connections
    cost as little as a batch of 64. An event that arrives alone is stored without delay.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._waiting: dict[str, list[_Waiting]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def store(self, caller: Caller, event: bytes) -> asyncio.Future[Receipt]:
        """Queue one event. The returned future gives its receipt, or raises the error of `batch` if the batch fails.

        Args:
            event: a valid JSON object. The caller has validated it: anything else would corrupt the other events.

        The future fails with the errors of `batch`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Receipt] = loop.create_future()
        waiting = self._waiting.get(caller.object)
        if waiting is None:
            waiting = self._waiting[caller.object] = []
            if caller.object not in self._sending:
                self._sending[caller.object] = loop.create_task(self._send(caller))
        waiting.append((event, caller.key, done))
        return done

    async def _send(self, caller: Caller) -> None:
        """Store the waiting events of the caller's object, batch after batch, until none waits."""
        try:
            await asyncio.sleep(0)
            while waiting := self._waiting.pop(caller.object, None):
                for start in range(0, len(waiting), _MAX_EVENTS):
                    await self._store(caller, waiting[start : start + _MAX_EVENTS])
        finally:
            del self._sending[caller.object]

    async def _store(self, caller: Caller, waiting: list[_Waiting]) -> None:
        try:
            body = b"[%s]" % b",".join([event for event, _, _ in waiting])
            target: Any = self._auth.object(caller)
            receipts: list[Receipt] = await target.batch(
                body, source="http", keep_refused=True, key=[key for _, key, _ in waiting]
            )
            pairs = list(zip(waiting, receipts, strict=True))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - each of those who wait raises it
            for _, _, done in waiting:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, _, done), receipt in pairs:
            if not done.done():  # it is done already if the client has disconnected
                done.set_result(receipt)


_T = TypeVar("_T")

MAX_BATCH_EVENTS = 10_000


class EventRequests:
    """Reads a request, keeps an invalid body as a dead letter, stores events, and charges the key for them."""

    def __init__(self, auth: Auth, body: Body, micro_batching: MicroBatching) -> None:
        self._auth = auth
        self._body = body
        self._micro_batching = micro_batching

    async def read(self, request: Request) -> tuple[Caller, bytes]:
        """Read the sender and the body of `request`.

        Raises:
            Refusal: the key may not write, or the body is too large, too slow or wrongly encoded.
        """
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        self._auth.weigh(caller, len(body))
        return caller, body

    async def decoded(self, request: Request, caller: Caller, body: bytes, decode: Callable[[bytes], _T]) -> _T:
        """Return `decode(body)`. A body that `decode` refuses is kept as a dead letter.

        Raises:
            Refusal: the one that `decode` raises.
        """
        try:
            return decode(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise

    async def store_json(self, caller: Caller, event: bytes) -> Receipt:
        """Store one event, a valid JSON object, together with others that arrive at the same time.

        Raises:
            Refusal: 400, the event was rejected.
        """
        receipt = await self._micro_batching.store(caller, event)
        self._auth.charge(caller, 1)
        return _accepted(receipt)

    async def store(self, caller: Caller, event: dict[str, Any]) -> Receipt:
        """Store one event, in Segment's names or ours. Raises Refusal: 400, the event was rejected."""
        (receipt,) = await self.store_batch(caller, [event])
        return _accepted(receipt)

    async def store_batch(self, caller: Caller, events: bytes | list[dict[str, Any]]) -> list[Receipt]:
        """Store the valid events of a batch. Rejected ones become dead letters."""
        target = self._auth.object(caller)
        receipts: list[Receipt] = await target.batch(events, source="http", keep_refused=True, key=caller.key)
        self._auth.charge(caller, len(receipts))
        return receipts


def _accepted(receipt: Receipt) -> Receipt:
    if receipt.status == "rejected":
        raise Refusal(400, "INVALID_EVENT", receipt.reason or "", messageId=receipt.message_id)
    return receipt


class EventBody(msgspec.Struct, rename="camel"):
    """One event in Segment's names; snake_case names are accepted too, unknown names are ignored."""

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
        """A JSON array, `{"batch": […]}` or NDJSON: 200 with the outcome of each event. Valid events are stored."""
        caller, body = await self._requests.read(request)
        check_count(body, MAX_BATCH_EVENTS)
        return receipts_response(await self._requests.store_batch(caller, body))


class PlatformEvent(msgspec.Struct, rename="camel"):
    """An event in the form of the real-time platform.

    Attributes:
        performance: `duration` (milliseconds) and `statusCode`, stored as properties `duration_ms` and `status_code`.
        usage: `quantity`, `unit` and `sku`, stored as properties of these names.
        organization_id: stored as the property `organization_id`.
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
    """The events of one request."""

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
    """The outcome of a batch: `accepted + rejected` is its number of events; `errors` has each rejected one."""

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
    """Give an event of the platform, or a CloudEvent, the log's field names; return any other value unchanged.

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
    if event.get("id") is not None:  # an id is unique within its source only
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
