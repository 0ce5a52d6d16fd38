"""Responses: how values, receipts and query results become HTTP responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from lakebed.api.errors import Refusal
from lakebed.api.formats import ARROW, CSV, FORMATS, JSON, NDJSON
from lakebed.api.openapi.operation import Parameter
from lakebed.errors import QueryBusy
from lakebed.events.event import Receipt
from lakebed.query.result import Result

__all__ = [
    "ACCEPT",
    "TABLE",
    "BatchAnswer",
    "ReceiptAnswer",
    "json_response",
    "receipts_response",
    "table_response",
    "while_connected",
]

_T = TypeVar("_T")

ACCEPT = Parameter("Accept", str, f"{', '.join(FORMATS)}; JSON unless said", "header")


class Column(msgspec.Struct):
    """A column of the result: its name, and its type in Arrow's words."""

    name: str
    type: str


class Answer(msgspec.Struct):
    """The result: rows as lists in the order of the columns; the tiers they came from and the events they cover."""

    columns: list[Column]
    rows: list[list[Any]]
    tiers: list[str]
    seq: tuple[int, int]
    ms: float


TABLE = {JSON: Answer, NDJSON: str, CSV: str, ARROW: bytes}
"""What `operation` is told of such an answer."""


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON: structs, rows, dates and decimals included."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


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


async def table_response(request: Request, kind: str, work: Awaitable[Result]) -> StreamingResponse:
    """The result of `work` in the format `kind`. It is cancelled when the client goes.

    Raises:
        Refusal: 429 or 503, as many questions run as may.
        ClientDisconnect: the client went.
    """
    try:
        result = await while_connected(request, work)
    except QueryBusy as error:
        status = 503 if error.facts.get("scope") == "server" else 429
        raise Refusal(status, "QUERY_BUSY", error.message, headers={"Retry-After": "1"}) from error
    headers = {
        "Lakebed-Tiers": ", ".join(result.tiers),
        "Lakebed-Seq": "-".join(map(str, result.seq)),
        "Server-Timing": f"answer;dur={result.elapsed_ms:.1f}",
        "Vary": "Accept",
    }
    return StreamingResponse(FORMATS[kind](result), headers=headers, media_type=kind)


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """The result of `work`, which is cancelled when the client goes: nobody else waits for it.

    Raises:
        ClientDisconnect: it went.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(request))
    either: set[asyncio.Task[Any]] = {working, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in either:
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
