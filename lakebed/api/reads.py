"""Reads: what an object's methods answer, over GET."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.answer import json_response
from lakebed.api.errors import Refusal
from lakebed.api.gate import Gate
from lakebed.query.result import Result

__all__ = ["Reads"]

_MAX_DAYS = 36_600
_MAX_BY = 5
_ALWAYS = {"object"}
_DAYS = ("days", "start", "end", "as_of", "max_staleness")
_SERIES = ("event", "start", "end", "grain", "by", "measure", "as_of")


class Reads:
    """`GET /stats`, `/dau`, `/wau`, `/mau`, `/timeseries`, `/tiers`.

    Rows are a JSON list of objects. The headers `Lakebed-Tiers`, `Lakebed-Seq` and `Server-Timing` say where they came
    from, which events they cover, and how long it took.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        answers = (self.stats, self.tiers, self.dau, self.wau, self.mau, self.timeseries)
        return [Route(f"/{answer.__name__}", answer, methods=["GET"]) for answer in answers]

    async def stats(self, request: Request) -> Response:
        """The live counters."""
        found = self._object(request, ()).stats()
        return json_response(await found if inspect.isawaitable(found) else found)

    async def tiers(self, request: Request) -> Response:
        """What lies in each tier, how far each consumer of the log has come, and the disk."""
        return json_response(await self._object(request, ()).tiers())

    async def dau(self, request: Request) -> Response:
        """Daily actives: rows `date, dau, events` of the last `days` days, or from `start` to `end`, both included."""
        return await self._active(request, "dau")

    async def wau(self, request: Request) -> Response:
        """Weekly actives: rows `date, wau, events`, each of the seven days that end there."""
        return await self._active(request, "wau")

    async def mau(self, request: Request) -> Response:
        """Monthly actives: rows `date, mau, events`, each of the thirty days that end there."""
        return await self._active(request, "mau")

    async def timeseries(self, request: Request) -> Response:
        """Rows `time, value` and the `by` columns of `[start, end)`. `by` may be given several times."""
        target = self._object(request, _SERIES)
        given = request.query_params
        if "start" not in given or "end" not in given:
            message = "start and end are needed: ISO 8601 times or dates, UTC unless they say otherwise"
            raise Refusal(400, "INVALID_PARAMETER", message)
        by = given.getlist("by")
        if len(by) > _MAX_BY:
            raise Refusal(400, "INVALID_PARAMETER", f"by takes at most {_MAX_BY} columns", by=len(by))
        options = {name: given[name] for name in _SERIES if name in given and name != "by"}
        return _rows(await target.timeseries(by=by or None, **options))

    async def _active(self, request: Request, measure: Literal["dau", "wau", "mau"]) -> Response:
        target = self._object(request, _DAYS)
        given = request.query_params
        options: dict[str, Any] = {name: given[name] for name in ("start", "end", "as_of") if name in given}
        if "start" in given and "days" in given:
            raise Refusal(400, "INVALID_PARAMETER", "Give days or start, not both")
        if "max_staleness" in given:
            options["max_staleness"] = _seconds(given["max_staleness"])
        return _rows(await getattr(target, measure)(_days(given.get("days", "7")), **options))

    def _object(self, request: Request, known: Collection[str]) -> Any:
        """The object that is asked. An unknown parameter is refused: without it, it would be another question.

        Raises:
            Refusal: 400, and what the gate refuses.
        """
        target = self._gate.existing(self._gate.admit(request, "read"))
        unknown = sorted(set(request.query_params) - {*known, *_ALWAYS})
        if unknown:
            there = f"it takes {', '.join(known)}" if known else "it takes none"
            message = f"There is no parameter {unknown[0][:40]!r}; {there}"
            raise Refusal(400, "INVALID_PARAMETER", message, parameter=unknown[0][:40])
        twice = [name for name in known if name != "by" and len(request.query_params.getlist(name)) > 1]
        if twice:
            raise Refusal(400, "INVALID_PARAMETER", f"{twice[0]} was given twice", parameter=twice[0])
        return target


def _rows(result: Result) -> Response:
    response = json_response([row._asdict() for row in result])
    response.headers["Lakebed-Tiers"] = ", ".join(result.tiers)
    response.headers["Lakebed-Seq"] = "-".join(map(str, result.seq))
    response.headers["Server-Timing"] = f"answer;dur={result.elapsed_ms:.1f}"
    return response


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MAX_DAYS)) or not 0 < int(text) <= _MAX_DAYS:
        raise Refusal(400, "INVALID_PARAMETER", f"days must be a whole number from 1 to {_MAX_DAYS}", days=text[:40])
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Refusal(400, "INVALID_PARAMETER", "max_staleness must be a number of seconds", max_staleness=text[:40])
    return seconds
