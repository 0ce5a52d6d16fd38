"""MetricRoutes: stats, active users, time series and tiers, over GET."""

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
from lakebed.api.openapi.document import Parameter, operation
from lakebed.api.responses import json_response, refuse_unknown_parameters, whole_number
from lakebed.monitoring.live_snapshot import Stats
from lakebed.monitoring.tier_status import TierStatus
from lakebed.query.result import Result

__all__ = ["MetricRoutes"]

_MAX_DAYS = 36_600
_MAX_BY = 5
_AS_OF = Parameter("as_of", str, "Only what was received up to this ISO 8601 time; the answer never changes again")
_DAYS = (
    Parameter("days", Annotated[int, msgspec.Meta(ge=1, le=_MAX_DAYS)], "Number of days; default 7"),
    Parameter("start", str, "The first day, instead of `days`"),
    Parameter("end", str, "The last day, included; default today"),
    _AS_OF,
    Parameter("max_staleness", Annotated[float, msgspec.Meta(ge=0)], "Seconds of newest events that may be missing"),
)
_SERIES = (
    Parameter("event", str, "Only events of this name"),
    Parameter("start", str, "ISO 8601 time or date, UTC without a zone; included", required=True),
    Parameter("end", str, "The same; excluded", required=True),
    Parameter("grain", Literal["minute", "hour", "day", "week", "month"], "Of the buckets; default hour"),
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
    """People and events of the seven days that end with `date`, in UTC."""

    date: dt.date
    wau: int
    events: int


class MauRow(msgspec.Struct):
    """People and events of the thirty days that end with `date`, in UTC."""

    date: dt.date
    mau: int
    events: int


class MetricRoutes:
    """`GET /stats`, `/dau`, `/wau`, `/mau`, `/timeseries`, `/tiers`.

    Rows are a JSON list of objects. The headers `Lakebed-Tiers`, `Lakebed-Seq` and `Server-Timing` name the
    tiers, the events they cover, and the duration.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        endpoints = (self.stats, self.tiers, self.dau, self.wau, self.mau, self.timeseries)
        return [Route(f"/{endpoint.__name__}", endpoint, methods=["GET"]) for endpoint in endpoints]

    @operation(scope="read", answer=Stats, refusals=[404])
    async def stats(self, request: Request) -> Response:
        """The live counters."""
        stats = self._object(request, ()).stats()
        return json_response(await stats if inspect.isawaitable(stats) else stats)

    @operation(scope="read", answer=TierStatus, refusals=[404])
    async def tiers(self, request: Request) -> Response:
        """The contents of each tier, the position of each consumer of the log, and the disk."""
        return json_response(await self._object(request, ()).tiers())

    @operation(scope="read", parameters=_DAYS, answer=list[DauRow], refusals=[404, 422, 504])
    async def dau(self, request: Request) -> Response:
        """Daily actives: rows `date, dau, events` of the last `days` days, or from `start` to `end`, both included."""
        return await self._active(request, "dau")

    @operation(scope="read", parameters=_DAYS, answer=list[WauRow], refusals=[404, 422, 504])
    async def wau(self, request: Request) -> Response:
        """Weekly actives: rows `date, wau, events`, each of the seven days that end with `date`."""
        return await self._active(request, "wau")

    @operation(scope="read", parameters=_DAYS, answer=list[MauRow], refusals=[404, 422, 504])
    async def mau(self, request: Request) -> Response:
        """Monthly actives: rows `date, mau, events`, each of the thirty days that end with `date`."""
        return await self._active(request, "mau")

    @operation(scope="read", parameters=_SERIES, answer=list[dict[str, Any]], refusals=[404, 422, 504])
    async def timeseries(self, request: Request) -> Response:
        """Rows `time, value` and the `by` columns of `[start, end)`. `by` may be given several times."""
        target = self._object(request, _SERIES)
        query = request.query_params
        if "start" not in query or "end" not in query:
            message = "`start` and `end` are needed: ISO 8601 times or dates; without a zone they are in UTC"
            raise Refusal(400, "INVALID_PARAMETER", message)
        by = query.getlist("by")
        if len(by) > _MAX_BY:
            raise Refusal(400, "INVALID_PARAMETER", f"`by` takes at most {_MAX_BY} columns", by=len(by))
        names = [parameter.name for parameter in _SERIES if parameter.name != "by"]
        options = {name: query[name] for name in names if name in query}
        with hints_included():
            return _rows(await target.timeseries(by=by or None, **options))

    async def _active(self, request: Request, measure: Literal["dau", "wau", "mau"]) -> Response:
        target = self._object(request, _DAYS)
        query = request.query_params
        options: dict[str, Any] = {name: query[name] for name in ("start", "end", "as_of") if name in query}
        if "start" in query and "days" in query:
            raise Refusal(400, "INVALID_PARAMETER", "Give `days` or `start`, not both")
        if "max_staleness" in query:
            options["max_staleness"] = _seconds(query["max_staleness"])
        with hints_included():
            days = whole_number("days", query.get("days", "7"), _MAX_DAYS)
            return _rows(await getattr(target, measure)(days, **options))

    def _object(self, request: Request, parameters: Collection[Parameter]) -> Any:
        """The object of the request, after a check that each parameter is known and given once.

        Raises:
            Refusal: 400, a parameter is unknown or given twice; and the refusals of `Auth`.
        """
        target = self._auth.existing(self._auth.admit(request, "read"))
        known = [parameter.name for parameter in parameters]
        refuse_unknown_parameters(request, known)
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Refusal(400, "INVALID_PARAMETER", "`max_staleness` must be a number of seconds", max_staleness=text[:40])
    return seconds
