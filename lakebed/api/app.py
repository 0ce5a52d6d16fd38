"""create_app(): POST /track, POST /track/batch, GET /stats, GET /dau."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lakebed.api.body import Body, json_object
from lakebed.api.errors import Refusal, error_handlers
from lakebed.events import Receipt
from lakebed.namespace import Namespace

__all__ = ["create_app"]

OBJECT_HEADER = "X-Lakebed-Object"
DEFAULT_OBJECT = "default"
_MAX_DAYS = 36_600


def create_app(target: Any, *, max_body_bytes: int = 1 << 20, body_timeout_s: float = 10.0) -> Starlette:
    """An ASGI app over an `Analytics` object or a `Namespace`. It has no authentication.

    Args:
        target: if it is not open when the app starts, the app opens it, and closes it when it stops.
        max_body_bytes: a larger body is 413.
        body_timeout_s: a body that takes longer to arrive is 408.

    With a namespace, the header `X-Lakebed-Object` or the query's `object` names the object, by default "default".
    Writing makes an object that does not exist; reading it is 404.

    Mounted in another app its lifespan does not run: open `target` in that app's own.
    """
    routes = _Routes(target, Body(max_body_bytes, body_timeout_s))
    return Starlette(
        routes=[
            Route("/track", routes.track, methods=["POST"]),
            Route("/track/batch", routes.batch, methods=["POST"]),
            Route("/stats", routes.stats, methods=["GET"]),
            Route("/dau", routes.dau, methods=["GET"]),
        ],
        exception_handlers=error_handlers,
        lifespan=routes.lifespan,
    )


class _Routes:
    def __init__(self, target: Any, body: Body) -> None:
        self._target = target
        self._body = body

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        if self._target.is_open:
            yield
            return
        async with self._target:
            yield

    async def track(self, request: Request) -> Response:
        """One event, in Segment's names or ours: its receipt, or 400 with the reason."""
        event = json_object(await self._body.read(request))
        receipt: Receipt = (await self._object(request).batch([event], source="http"))[0]
        if receipt.status == "rejected":
            raise Refusal(400, "INVALID_EVENT", receipt.reason or "", messageId=receipt.message_id)
        return _json({"seq": receipt.seq, "messageId": receipt.message_id, "status": receipt.status})

    async def batch(self, request: Request) -> Response:
        """A JSON array, `{"batch": […]}` or NDJSON: 200 with what became of each. The good ones are stored."""
        receipts = await self._object(request).batch(await self._body.read(request), source="http")
        return _json(_summary(receipts))

    async def stats(self, request: Request) -> Response:
        """The live counters."""
        found = self._existing(request).stats()
        return _json(await found if inspect.isawaitable(found) else found)

    async def dau(self, request: Request) -> Response:
        """Daily actives of the last `days` days, a list of rows."""
        result = await self._existing(request).dau(_days(request))
        return _json([row._asdict() for row in result])

    def _existing(self, request: Request) -> Any:
        if isinstance(self._target, Namespace) and not self._target.exists(name := _name(request)):
            raise Refusal(404, "NOT_FOUND", f"There is no object {name!r}", object=name)
        return self._object(request)

    def _object(self, request: Request) -> Any:
        name = _name(request)
        if isinstance(self._target, Namespace):
            return self._target.get(name)
        if name not in (self._target.name, DEFAULT_OBJECT):
            raise Refusal(404, "NOT_FOUND", f"This server serves one object, and it is not {name!r}", object=name)
        return self._target


def _name(request: Request) -> str:
    return request.headers.get(OBJECT_HEADER) or request.query_params.get("object") or DEFAULT_OBJECT


def _days(request: Request) -> int:
    text = request.query_params.get("days", "7")
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MAX_DAYS)) or not 0 < int(text) <= _MAX_DAYS:
        raise Refusal(400, "INVALID_PARAMETER", f"days must be a whole number from 1 to {_MAX_DAYS}", days=text[:40])
    return int(text)


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


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
