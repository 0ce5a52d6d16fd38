"""SQL: one SELECT in, its rows out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lakebed.api.body import Body
from lakebed.api.errors import Refusal
from lakebed.api.formats import ARROW, CSV, FORMATS, JSON, NDJSON, chosen
from lakebed.api.gate import Gate
from lakebed.api.operation import Parameter, operation
from lakebed.errors import QueryBusy
from lakebed.query.result import Result

__all__ = ["Sql"]

_ACCEPT = Parameter("Accept", str, f"{', '.join(FORMATS)}; JSON unless said", "header")


class QueryBody(msgspec.Struct, forbid_unknown_fields=True):
    """A SELECT in DuckDB's dialect.

    Attributes:
        params: a list for `?`, or an object for `$name`.
        as_of: ISO 8601: the answer as it was then.
        limit: rows at most.
        timeout: seconds at most; the server's own limit holds too.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    as_of: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


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


class Sql:
    """`POST /query`."""

    def __init__(self, gate: Gate, body: Body) -> None:
        self._gate = gate
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [Route("/query", self.query, methods=["POST"])]

    @operation(
        scope="read",
        parameters=[_ACCEPT],
        body=QueryBody,
        answer={JSON: Answer, NDJSON: str, CSV: str, ARROW: bytes},
        refusals=[404, 406, 422, 429, 503, 504],
    )
    async def query(self, request: Request) -> Response:
        """One read-only SELECT over the object's events and rollups.

        It may name the tables and functions that docs/sql-over-http.md lists. It runs in a process of its own, which is
        killed when it takes too long.
        """
        caller = self._gate.admit(request, "read")
        kind = chosen(request.headers.get("accept", ""))
        asked = _asked(await self._body.read(request))
        target = self._gate.existing(caller)

        async def answer() -> Result:
            found: Result = await target.query_untrusted(
                asked.sql, asked.params, as_of=asked.as_of, limit=asked.limit, timeout=asked.timeout
            )
            return found

        try:
            result = await _while_there(request, answer())
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


async def _while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes: nobody else waits for it.

    Raises:
        ClientDisconnect: it went.
    """
    working = asyncio.create_task(work)
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


def _asked(body: bytes) -> QueryBody:
    try:
        body.decode()  # msgspec leaves what it skips unread
        return msgspec.json.decode(body, type=QueryBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "INVALID_BODY", f"The body is no question: {error}", example={"sql": "SELECT 1"}) from None
