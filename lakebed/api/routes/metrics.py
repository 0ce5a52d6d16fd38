"""Reads: what an object's methods answer, over GET."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.errors import Refusal, hints_included
from lakebed.api.openapi.operation import Parameter, operation
from lakebed.api.responses import json_response
from lakebed.monitoring.stats import Stats
from lakebed.monitoring.tier_status import TierStatus
from lakebed.query.result import Result

__all__ = ["MetricRoutes"]

_MAX_DAYS = 36_600
_MAX_BY = 5
_IGNORED = "object"  # the key alone names the object; who still says it is not refused
_AS_OF = Parameter("as_of", str, "Only what was received up to this ISO 8601 time; the answer never changes again")
_DAYS = (
    Parameter("days", Annotated[int, msgspec.Meta(ge=1, le=_MAX_DAYS)], "How many; 7 unless said"),
    Parameter("start", str, "The first day, instead of `days`"),
    Parameter("end", str, "The last day, included; today unless said"),
    _AS_OF,
    Parameter("max_staleness", Annotated[float, msgspec.Meta(ge=0)], "Seconds that the newest events may be missing"),
)
_SERIES = (
    Parameter("event", str, "Only events of this name"),
    Parameter("start", str, "ISO 8601 time or date, UTC unless it says otherwise; included", required=True),
    Parameter("end", str, "The same; excluded", required=True),
    Parameter("grain", Literal["minute", "hour", "day", "week", "month"], "Of the buckets; hour unless said"),
    Parameter("by", str, "A column or property to split by; may be given several times"),
    Parameter("measure", str, "count, people, sum(x), avg(x), min(x), max(x), distinct(x) or quantile(x, 0.95)"),
    _AS_OF,
)


class DauRow(msgspec.Struct):
    """People and events of one day in UTC."""

    date: dt.date
    dau: int
    events: int


class WauRow(msgspec.Struct):
    """The same of the seven days that end with `date`."""

    date: dt.date
    wau: int
    events: int


class MauRow(msgspec.Struct):
    """The same of the thirty days that end with `date`."""

    date: dt.date
    mau: int
    events: int


class MetricRoutes:
    """`GET /stats`, `/dau`, `/wau`, `/mau`, `/timeseries`, `/tiers`.

    Rows are a JSON list of objects. The headers `Lakebed-Tiers`, `Lakebed-Seq` and `Server-Timing` say where they came
    from, which events they cover, and how long it took.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        answers = (self.stats, self.tiers, self.dau, self.wau, self.mau, self.timeseries)
        return [Route(f"/{answer.__name__}", answer, methods=["GET"]) for answer in answers]

    @operation(scope="read", answer=Stats, refusals=[404])
    async def stats(self, request: Request) -> Response:
        """The live counters."""
        found = self._object(request, ()).stats()
        return json_response(await found if inspect.isawaitable(found) else found)

    @operation(scope="read", answer=TierStatus, refusals=[404])
    async def tiers(self, request: Request) -> Response:
        """What lies in each tier, how far each consumer of the log has come, and the disk."""
        return json_response(await self._object(request, ()).tiers())

    @operation(scope="read", parameters=_DAYS, answer=list[DauRow], refusals=[404, 422, 504])
    async def dau(self, request: Request) -> Response:
        """Daily actives: rows `date, dau, events` of the last `days` days, or from `start` to `end`, both included."""
        return await self._active(request, "dau")

    @operation(scope="read", parameters=_DAYS, answer=list[WauRow], refusals=[404, 422, 504])
    async def wau(self, request: Request) -> Response:
        """Weekly actives: rows `date, wau, events`, each of the seven days that end there."""
        return await self._active(request, "wau")

    @operation(scope="read", parameters=_DAYS, answer=list[MauRow], refusals=[404, 422, 504])
    async def mau(self, request: Request) -> Response:
        """Monthly actives: rows `date, mau, events`, each of the thirty days that end there."""
        return await self._active(request, "mau")

    @operation(scope="read", parameters=_SERIES, answer=list[dict[str, Any]], refusals=[404, 422, 504])
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
        options = {one.name: given[one.name] for one in _SERIES if one.name in given and one.name != "by"}
        with hints_included():
            return _rows(await target.timeseries(by=by or None, **options))

    async def _active(self, request: Request, measure: Literal["dau", "wau", "mau"]) -> Response:
        target = self._object(request, _DAYS)
        given = request.query_params
        options: dict[str, Any] = {name: given[name] for name in ("start", "end", "as_of") if name in given}
        if "start" in given and "days" in given:
            raise Refusal(400, "INVALID_PARAMETER", "Give days or start, not both")
        if "max_staleness" in given:
            options["max_staleness"] = _seconds(given["max_staleness"])
        with hints_included():
            return _rows(await getattr(target, measure)(_days(given.get("days", "7")), **options))

    def _object(self, request: Request, taken: Collection[Parameter]) -> Any:
        """The object that is asked. An unknown parameter is refused: without it, it would be another question.

        Raises:
            Refusal: 400, and what the auth refuses.
        """
        target = self._auth.existing(self._auth.admit(request, "read"))
        known = [one.name for one in taken]
        unknown = sorted(set(request.query_params) - {*known, _IGNORED})
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
