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

ACCEPT = Parameter("Accept", str, f"{', '.join(FORMATS)}; default JSON", "header")


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
"""The responses that `operation` documents for a table."""


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON: structs, rows, dates and decimals included."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class ReceiptAnswer(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """The outcome of one event. Only a rejected event has a `reason`."""

    seq: int | None
    message_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    reason: str | None = None


class BatchAnswer(msgspec.Struct, gc=False):
    """The outcome of a batch: `received = stored + duplicate + rejected`, and a receipt for each, in order."""

    success: bool
    received: int
    stored: int
    duplicate: int
    rejected: int
    events: list[ReceiptAnswer]


def receipts_response(receipts: Sequence[Receipt]) -> Response:
    """200 with the outcome of each event."""
    statuses = [receipt.status for receipt in receipts]
    duplicate, rejected = statuses.count("duplicate"), statuses.count("rejected")
    stored = len(statuses) - duplicate - rejected
    events = [ReceiptAnswer(receipt.seq, receipt.message_id, receipt.status, receipt.reason) for receipt in receipts]
    return json_response(BatchAnswer(not rejected, len(statuses), stored, duplicate, rejected, events))


async def table_response(request: Request, kind: str, work: Awaitable[Result]) -> StreamingResponse:
    """The result of `work` in the format `kind`. `work` is cancelled when the client disconnects.

    Raises:
        Refusal: 429 or 503, the limit of running queries is reached.
        ClientDisconnect: the client disconnected.
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
    """The result of `work`, which is cancelled when the client disconnects: no other caller waits for it.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    working = asyncio.ensure_future(work)
    disconnected = asyncio.create_task(_disconnected(request))
    either: set[asyncio.Task[Any]] = {working, disconnected}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in either:
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
