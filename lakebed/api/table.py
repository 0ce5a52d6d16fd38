"""Table: the result of a question as a response, in the format that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from lakebed.api.errors import Refusal
from lakebed.api.formats import ARROW, CSV, FORMATS, JSON, NDJSON
from lakebed.api.openapi.operation import Parameter
from lakebed.errors import QueryBusy
from lakebed.query.result import Result

__all__ = ["ACCEPT", "TABLE", "table_response", "while_there"]

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


async def table_response(request: Request, kind: str, work: Awaitable[Result]) -> StreamingResponse:
    """The result of `work` in the format `kind`. It is cancelled when the client goes.

    Raises:
        Refusal: 429 or 503, as many questions run as may.
        ClientDisconnect: the client went.
    """
    try:
        result = await while_there(request, work)
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


async def while_there(request: Request, work: Awaitable[_T]) -> _T:
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
