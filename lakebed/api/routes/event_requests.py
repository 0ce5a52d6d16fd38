"""EventRequests: how `/track` and `/events` read requests and store their events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request

from lakebed.api.auth import Auth, Caller
from lakebed.api.body import Body
from lakebed.api.errors import Refusal
from lakebed.api.routes.micro_batching import MicroBatching
from lakebed.events.event import Receipt

__all__ = ["MAX_BATCH_EVENTS", "EventRequests"]

_T = TypeVar("_T")

MAX_BATCH_EVENTS = 10_000


class EventRequests:
    """Reads a request, keeps an invalid body as a dead letter, stores events, and charges the key for them."""

    def __init__(self, auth: Auth, body: Body, micro_batching: MicroBatching) -> None:
        self._auth = auth
        self._body = body
        self._micro_batching = micro_batching

    async def read(self, request: Request) -> tuple[Caller, bytes]:
        """The sender and the body.

        Raises:
            Refusal: the key may not write, or the body is too large, too slow or wrongly encoded.
        """
        caller = self._auth.admit(request, "write")
        body = await self._body.read(request)
        self._auth.weigh(caller, len(body))
        return caller, body

    async def decoded(self, request: Request, caller: Caller, body: bytes, decode: Callable[[bytes], _T]) -> _T:
        """`decode(body)`. A body that `decode` refuses is kept as a dead letter.

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
