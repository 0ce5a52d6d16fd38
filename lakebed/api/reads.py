"""Reads: what an object's methods answer, over GET."""

from __future__ import annotations

import datetime as dt
import inspect
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.answer import json_response
from lakebed.api.errors import Refusal
from lakebed.api.gate import Gate
from lakebed.api.operation import Parameter, operation
from lakebed.query.stats import Stats

__all__ = ["Reads"]

_MAX_DAYS = 36_600
_DAYS = Parameter("days", Annotated[int, msgspec.Meta(ge=1, le=_MAX_DAYS)], "How many; 7 unless said")


class Day(msgspec.Struct):
    """One day in UTC."""

    date: dt.date
    dau: int
    events: int


class Reads:
    """`GET /stats`, `GET /dau`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/stats", self.stats, methods=["GET"]),
            Route("/dau", self.dau, methods=["GET"]),
        ]

    @operation(scope="read", answer=Stats)
    async def stats(self, request: Request) -> Response:
        """The live counters."""
        found = self._gate.existing(self._gate.admit(request, "read")).stats()
        return json_response(await found if inspect.isawaitable(found) else found)

    @operation(scope="read", parameters=[_DAYS], answer=list[Day], refusals=[504])
    async def dau(self, request: Request) -> Response:
        """Daily actives of the last `days` days, a list of rows."""
        result = await self._gate.existing(self._gate.admit(request, "read")).dau(_days(request))
        return json_response([row._asdict() for row in result])


def _days(request: Request) -> int:
    text = request.query_params.get("days", "7")
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MAX_DAYS)) or not 0 < int(text) <= _MAX_DAYS:
        raise Refusal(400, "INVALID_PARAMETER", f"days must be a whole number from 1 to {_MAX_DAYS}", days=text[:40])
    return int(text)
