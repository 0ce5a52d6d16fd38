"""Routes that answer queries: one SELECT, the queries of the real-time platform, templates and reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import UNREADABLE, Body, decoded
from lakebed.api.errors import Refusal, hints_included
from lakebed.api.openapi.document import operation
from lakebed.api.responses import json_response
from lakebed.api.tables import ACCEPT, TABLE, accepted_format, table_response, while_connected
from lakebed.interface.json_schema import body_of
from lakebed.interface.verbs import REPORT_VERBS
from lakebed.query.result import Result
from lakebed.query.templates.templates import Template, library
from lakebed.reports.calendar import Calendar
from lakebed.reports.reports import signature_of
from lakebed.reports.scope import Parameters, Scope, instant

__all__ = ["PlatformRoutes", "QueryRoutes", "ReportRoutes", "TemplateRoutes"]

GroupBy = Literal["minute", "hour", "day", "week", "month"]
_METRICS = {
    "users": "count(DISTINCT person_id)",
    "sessions": "count(DISTINCT session_id)",
    "organizations": "count(DISTINCT organization_id)",
    "avg_duration": "favg(duration_ms)",
    "p50_duration": "quantile_cont(duration_ms, 0.5)",
    "p95_duration": "quantile_cont(duration_ms, 0.95)",
    "p99_duration": "quantile_cont(duration_ms, 0.99)",
    "error_rate": "count(*) FILTER (status_code >= 400) / count(*)",
}
_FILTERS = {"event": "event", "user_id": "user_id", "organization_id": "organization_id", "session_id": "session_id"}
_MIDNIGHT = time()

EXAMPLE = {"start": "2026-01-01", "end": "2026-02-01", "groupBy": "day"}
"""An example of a `PlatformQuery`."""


class PlatformQuery(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The platform's query: events by time.

    Attributes:
        start: ISO 8601, included.
        end: ISO 8601, excluded.
        group_by: minute, hour, day, week (from Monday) or month (of the calendar), in UTC.
        metrics: users, sessions, organizations, avg_duration, p50_duration, p95_duration, p99_duration, error_rate.
        limit: maximum number of periods.
    """

    start: str
    end: str
    event: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    session_id: str | None = None
    group_by: GroupBy = "hour"
    metrics: list[str] = []
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class PerformanceBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The platform's query about requests by time.

    Attributes:
        start: ISO 8601, included.
        end: ISO 8601, excluded.
        path: the route whose requests count, as the app declares it: `/orders/{id}`; by default all.
        group_by: minute, hour, day, week (from Monday) or month (of the calendar), in UTC.
        by: columns or properties that rows are also split by, such as "path".
        threshold_ms: longest satisfying duration, for apdex.
        errors_from: the lowest status that is an error.
    """

    start: str
    end: str
    path: str | None = None
    group_by: GroupBy = "hour"
    by: list[str] = []
    threshold_ms: float = 500
    errors_from: int = 400


class Meta(msgspec.Struct, rename="camel"):
    """The range, and the number of rows; `hasMore` is true if further rows were left out."""

    start: str
    end: str
    count: int
    has_more: bool


class PlatformAnswer(msgspec.Struct):
    """A row for each period that has events, with its `timestamp`, `count` and the requested metrics."""

    data: list[dict[str, Any]]
    meta: Meta


class PlatformRoutes:
    """`POST /metrics/performance`. The platform's `POST /query` shares its path with SQL: see `QueryRoutes`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/metrics/performance", self.performance, methods=["POST"])]

    @operation(scope="read", body=PerformanceBody, answer=PlatformAnswer, refusals=[404, 422, 429, 503, 504])
    async def performance(self, request: Request) -> Response:
        """The duration of requests and their failures, by time: p50, p95, p99, average, error rate from 0 to 1, apdex.

        The answer is the report `performance` in the names of the platform; durations are milliseconds.
        """
        caller = self._auth.admit(request, "read")
        query = decoded(await self._body.read(request), PerformanceBody, "query", example=EXAMPLE)
        arguments = {
            "start": query.start,
            "end": query.end,
            "grain": query.group_by,
            "path": query.path,
            "by": [*query.by, *(["path"] if query.path is not None and "path" not in query.by else [])],
            "threshold_ms": query.threshold_ms,
            "errors_from": query.errors_from,
        }
        work = self._auth.existing(caller).report_untrusted("performance", arguments)
        with hints_included():
            data = _dicts(await while_connected(request, work))
        for row in data:
            began = row.pop("time")
            row["timestamp"] = began if isinstance(began, datetime) else datetime.combine(began, _MIDNIGHT, UTC)
            for name in ("avg", "p50", "p95", "p99", "max"):
                row[f"{name}_duration"] = row.pop(f"{name}_ms")
        return json_response(PlatformAnswer(data, Meta(query.start, query.end, len(data), has_more=False)))


async def platform_answer(request: Request, target: Any, query: PlatformQuery) -> Response:
    """The answer of `target` to the platform's query. Every value is a parameter of its SQL.

    Raises:
        Refusal: 400, a time is not valid or there is no such metric. And the errors of `query_untrusted`.
    """
    unknown = [name for name in query.metrics if name not in _METRICS]
    if unknown:
        message = f"There is no metric {unknown[0][:40]!r}. There are {', '.join(_METRICS)}"
        raise Refusal(400, "QUERY_REFUSED", message, metric=unknown[0][:40])
    with hints_included():
        scope = Scope(instant("start", query.start), instant("end", query.end))
    bind = Parameters()
    calendar = Calendar()
    conditions = [scope.condition(bind)]
    for field, column in _FILTERS.items():
        value = getattr(query, field)
        if value is not None:
            conditions.append(f"{column} = {bind(value)}")
    metrics = "".join(f", {_METRICS[name]} AS {name}" for name in dict.fromkeys(query.metrics))
    sql = f"""
        SELECT {calendar.instant(query.group_by, "n")} AS timestamp, * EXCLUDE (n) FROM (
            SELECT {calendar.number(query.group_by, "timestamp")} AS n, count(*) AS count{metrics}
            FROM events WHERE {" AND ".join(conditions)} GROUP BY n
        ) ORDER BY n LIMIT {bind(query.limit + 1)} OFFSET {bind(query.offset)}
    """
    data = _dicts(await while_connected(request, target.query_untrusted(sql, bind.params)))
    more = len(data) > query.limit
    data = data[: query.limit]
    return json_response(PlatformAnswer(data, Meta(query.start, query.end, len(data), more)))


def _dicts(result: Result) -> list[dict[str, Any]]:
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


class QueryBody(msgspec.Struct, forbid_unknown_fields=True):
    """A SELECT in DuckDB's dialect.

    Attributes:
        params: a list for `?`, or an object for `$name`.
        as_of: ISO 8601; the answer is as it was at that time.
        limit: maximum number of rows.
        timeout: maximum number of seconds, at least 0.1; the server's own limit holds too.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    as_of: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0.1)] | None = None


_shapes = msgspec.json.schema_components([QueryBody, PlatformQuery])[1]
_AnyQuery = Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": list(_shapes.values())})]


class QueryRoutes:
    """`POST /query`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/query", self.query, methods=["POST"])]

    @operation(scope="read", parameters=[ACCEPT], body=_AnyQuery, answer=TABLE, refusals=[404, 406, 422, 429, 503, 504])
    async def query(self, request: Request) -> Response:
        """One read-only SELECT over the object's events and rollups.

        The SELECT may name the tables and functions that docs/sql.md lists. It runs in a process of its own, which is
        killed if the query takes too long. A body with `start` and `end` but no `sql` is the platform's query: events
        by time, answered as JSON, `{data: [{timestamp, count, …}], meta: {start, end, count, hasMore}}`.
        """
        caller = self._auth.admit(request, "read")
        kind = accepted_format(request)
        body = await self._body.read(request)
        if _is_platform_query(body):
            platform_query = decoded(body, PlatformQuery, "query", example=EXAMPLE)
            return await platform_answer(request, self._auth.existing(caller), platform_query)
        query = decoded(body, QueryBody, "query", example={"sql": "SELECT 1"})
        target = self._auth.existing(caller)
        work = target.query_untrusted(
            query.sql, query.params, as_of=query.as_of, limit=query.limit, timeout=query.timeout
        )
        return await table_response(request, kind, work, hints=False)


class _Kind(msgspec.Struct, rename="camel"):
    sql: Any = None
    start: Any = None
    end: Any = None


def _is_platform_query(body: bytes) -> bool:
    """Whether a body has a range and no SQL. An invalid body counts as SQL, so that SQL's error is reported."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except UNREADABLE:
        return False
    return kind.sql is None and (kind.start is not None or kind.end is not None)


_REFUSALS = [400, 404, 406, 422, 429, 503, 504]


class TemplateRoutes:
    """`GET /templates`, `GET` and `POST /templates/{name}`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/templates", self.all, methods=["GET"]),
            Route("/templates/{name}", self.run, methods=["GET"]),
            Route("/templates/{name}", self.run_with_body, methods=["POST"]),
        ]

    @operation(scope="read", answer=list[Template])
    async def all(self, request: Request) -> Response:
        """Every template: its name, description, parameters and SQL."""
        self._auth.admit(request, "read")
        return json_response(list(library().values()))

    @operation(scope="read", parameters=[ACCEPT], answer=TABLE, refusals=_REFUSALS)
    async def run(self, request: Request) -> Response:
        """The answer to a template. The parameters of the URL are its parameters."""
        return await self._answer(request, None)

    @operation(scope="read", parameters=[ACCEPT], body=dict[str, Any], answer=TABLE, refusals=_REFUSALS)
    async def run_with_body(self, request: Request) -> Response:
        """The answer to a template. The body is an object with its parameters."""
        return await self._answer(request, self._body)

    async def _answer(self, request: Request, body: Body | None) -> Response:
        caller = self._auth.admit(request, "read")
        kind = accepted_format(request)
        params: dict[str, Any] = dict(request.query_params)
        if body is not None:
            params = decoded(await body.read(request) or b"{}", dict[str, Any], "object with parameters")
        name = request.path_params["name"]
        if name not in library():
            raise Refusal(404, "NOT_FOUND", f"There is no template {name[:40]!r}: GET /templates lists them")
        work = self._auth.existing(caller).template(name, params)
        return await table_response(request, kind, work)


class ReportRoutes:
    """`POST /reports/{name}`: the body is an object with the arguments of the report, the answer a table."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route(f"/reports/{name}", self._report(name), methods=["POST"]) for name in REPORT_VERBS]

    def _report(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        scope = REPORT_VERBS[name].scope

        async def answer(request: Request) -> Response:
            caller = self._auth.admit(request, scope)
            kind = accepted_format(request)
            body = await self._body.read(request)
            arguments = decoded(body or b"{}", dict[str, Any], "object with the report's arguments")
            work = self._auth.existing(caller).report_untrusted(name, arguments)
            return await table_response(request, kind, work)

        signature = signature_of(name)
        answer.__doc__ = signature.doc
        described = operation(
            scope=scope,
            parameters=[ACCEPT],
            body=body_of(signature),
            answer=TABLE,
            refusals=[404, 406, 422, 429, 503, 504],
        )
        return described(answer)
