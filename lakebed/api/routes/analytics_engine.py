"""AnalyticsEngineRoutes: the SQL API of Workers Analytics Engine, its data points, and the mappings of its tables."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal, definition_errors, hints_included
from lakebed.api.openapi.document import JSON, Parameter, operation
from lakebed.api.responses import json_response
from lakebed.api.tables import while_connected
from lakebed.concurrency import run_in_thread
from lakebed.definitions.definitions import Definition
from lakebed.errors import InvalidEvent, QueryCrashed, QueryError, QueryRefused, QueryTooLarge
from lakebed.query.dialects.analytics_engine.answer import encoded

__all__ = ["AnalyticsEngineRoutes"]

_ENGINE = "/client/v4/accounts/{id}/analytics_engine"
_TYPES = {"JSON": JSON, "JSONEachRow": "application/x-ndjson", "TabSeparated": "text/tab-separated-values"}
_STATEMENT = (
    Parameter("query", str, "The statement, if it is not in the body"),
    Parameter("as_of", str, "The answer as it was at this ISO 8601 time, which `now()` gives then; it never changes"),
)
_MAX_POINTS = 250


class DataPoint(msgspec.Struct, forbid_unknown_fields=True):
    """The argument of `writeDataPoint`."""

    indexes: list[str] = []
    blobs: list[str | None] = []
    doubles: list[float] = []


class Written(msgspec.Struct):
    """The number of data points that were stored, durably."""

    success: bool
    written: int


class Meta(msgspec.Struct):
    """A column: its name, and its ClickHouse type."""

    name: str
    type: str


class EngineRows(msgspec.Struct):
    """Rows as objects; with `FORMAT JSONEachRow` one per line, with `FORMAT TabSeparated` without names."""

    meta: list[Meta]
    data: list[dict[str, Any]]
    rows: int


class SavedDataset(msgspec.Struct, rename="camel"):
    """A mapping, its version, and the time when that version was saved."""

    name: str
    version: int
    saved_at: str
    mapping: Any


_ANSWER = {JSON: EngineRows, _TYPES["JSONEachRow"]: str, _TYPES["TabSeparated"]: str}
_REFUSALS = [400, 404, 429, 503, 504]
_INVALID = {422: ("Input was invalid, and why", {"text/plain": str})}
_Points = Annotated[Any, msgspec.Meta(extra_json_schema={"type": ["object", "array"]})]


class AnalyticsEngineRoutes:
    """`…/analytics_engine/sql`, `POST …/analytics_engine/{dataset}`; `GET /datasets`; `/datasets/{name}`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route(f"{_ENGINE}/sql", self.run, methods=["GET"]),
            Route(f"{_ENGINE}/sql", self.run_body, methods=["POST"]),
            # Grafana's plug-in for ClickHouse puts a slash before its parameters, and follows no redirect.
            Route(f"{_ENGINE}/sql/", self.run, methods=["GET"], include_in_schema=False),
            Route(f"{_ENGINE}/sql/", self.run_body, methods=["POST"], include_in_schema=False),
            Route(f"{_ENGINE}/{{dataset}}", self.write, methods=["POST"]),
            Route("/datasets", self.datasets, methods=["GET"]),
            Route("/datasets/{name:path}", self.dataset, methods=["GET"]),
            Route("/datasets/{name:path}", self.save, methods=["PUT"]),
            Route("/datasets/{name:path}", self.delete, methods=["DELETE"]),
        ]

    @operation(scope="read", parameters=_STATEMENT, answer=_ANSWER, refusals=_REFUSALS, others=_INVALID)
    async def run(self, request: Request) -> Response:
        """The answer to a statement of Analytics Engine in the URL, for clients that only read.

        A statement that the dialect refuses is 422 in plain text, `Input was invalid: …`. The key selects the object;
        the account's id is ignored.
        """
        return await self._answer(request, b"")

    @operation(
        scope="read",
        parameters=_STATEMENT,
        body={"text/plain": str},
        body_required=False,
        answer=_ANSWER,
        refusals=_REFUSALS,
        others=_INVALID,
    )
    async def run_body(self, request: Request) -> Response:
        """The answer to a statement of Analytics Engine: the body, of any content type, is the SQL.

        A statement that the dialect refuses is 422 in plain text, `Input was invalid: …`. The key selects the object;
        the account's id is ignored.
        """
        return await self._answer(request, None)

    async def _answer(self, request: Request, body: bytes | None) -> Response:
        target = self._auth.existing(self._auth.admit(request, "read"))
        body = await self._body.read(request) if body is None else body
        try:
            sql = body.decode() or request.query_params.get("query", "")
        except UnicodeDecodeError:
            return _invalid("the statement is not UTF-8")
        try:
            work = target.analytics_engine(sql, as_of=request.query_params.get("as_of"))
            answer = await while_connected(request, work)
        except (QueryRefused, QueryTooLarge, QueryCrashed) as error:
            return _invalid(error.message)
        except QueryError as error:
            if type(error) is not QueryError:  # for example busy or too slow: not the statement's fault
                raise
            return _invalid(error.message.partition("\n")[0])  # the rest shows DuckDB's SQL
        return Response(await run_in_thread("answer", lambda: encoded(answer)), media_type=_TYPES[answer.format])

    @operation(scope="write", body=_Points, answer=Written, refusals=[429, 503, 507])
    async def write(self, request: Request) -> Response:
        """Store one data point, or an array of at most 250, durably: `{indexes, blobs, doubles}`.

        A point that breaks a limit is 400 and named in the error; the points before it are stored.
        """
        caller = self._auth.admit(request, "write")
        points = _points(await self._body.read(request))
        target = self._auth.object(caller)
        for number, point in enumerate(points):
            try:
                await target.write_data_point(
                    request.path_params["dataset"], indexes=point.indexes, blobs=point.blobs, doubles=point.doubles
                )
            except InvalidEvent as error:
                message = f"Data point {number}: {error.message}"
                raise Refusal(400, "INVALID_DATA_POINT", message, written=number) from error
            self._auth.charge(caller, 1)
        return json_response(Written(success=True, written=len(points)))

    @operation(scope="read", answer=list[SavedDataset], refusals=[404])
    async def datasets(self, request: Request) -> Response:
        """The newest version of each mapping, by name."""
        datasets = await self._auth.existing(self._auth.admit(request, "read")).datasets()
        return json_response([_saved(dataset) for dataset in datasets])

    @operation(scope="read", answer=SavedDataset, refusals=[404])
    async def dataset(self, request: Request) -> Response:
        """The newest version of a mapping."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        with definition_errors():
            return json_response(_saved(await target.dataset(request.path_params["name"])))

    @operation(scope="admin", status=204, refusals=[404])
    async def delete(self, request: Request) -> Response:
        """Delete a mapping: its table then has no mapped events, only data points. An earlier `as_of` still uses it."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        with definition_errors():
            await target.delete_dataset(request.path_params["name"])
        return Response(status_code=204)

    @operation(scope="admin", body=dict[str, Any], answer=SavedDataset)
    async def save(self, request: Request) -> Response:
        """Save a mapping, which maps events to the rows of a table, and their values to its columns."""
        caller = self._auth.admit(request, "admin")
        mapping = decoded(await self._body.read(request), dict[str, Any], "mapping")
        with hints_included():
            saved = await self._auth.object(caller).save_dataset(request.path_params["name"], mapping)
        return json_response(_saved(saved))


def _invalid(message: str) -> Response:
    return Response(f"Input was invalid: {message}", 422, media_type="text/plain")


def _points(body: bytes) -> list[DataPoint]:
    if body.lstrip()[:1] == b"[":
        points = decoded(body, list[DataPoint], "list of data points")
    else:
        points = [decoded(body, DataPoint, "data point")]
    if len(points) > _MAX_POINTS:
        message = f"There are {len(points)} data points, the limit is {_MAX_POINTS}: send them in parts"
        raise Refusal(413, "BATCH_TOO_LARGE", message, limit=_MAX_POINTS)
    return points


def _saved(dataset: Definition) -> SavedDataset:
    return SavedDataset(dataset.name, dataset.version, dataset.at.isoformat(), dataset.body)
