"""QueryRoutes: one SELECT in, its rows out."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import UNREADABLE, Body, decoded
from lakebed.api.openapi.operation import operation
from lakebed.api.routes.platform import EXAMPLE, PlatformQuery, platform_answer
from lakebed.api.tables import ACCEPT, TABLE, accepted_format, table_response

__all__ = ["QueryRoutes"]


class QueryBody(msgspec.Struct, forbid_unknown_fields=True):
    """A SELECT in DuckDB's dialect.

    Attributes:
        params: a list for `?`, or an object for `$name`.
        as_of: ISO 8601; the answer as it was at that time.
        limit: rows at most.
        timeout: seconds at most; the server's own limit holds too.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    as_of: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


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

        It may name the tables and functions that docs/sql.md lists. It runs in a process of its own, which is
        killed when it takes too long. A body with `start` and `end` instead of `sql` is the platform's query: events by
        time, answered as JSON, `{data: [{timestamp, count, …}], meta: {start, end, count, hasMore}}`.
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
    """Whether a body has a range and no SQL. An invalid body counts as SQL, for its error."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except UNREADABLE:
        return False
    return kind.sql is None and (kind.start is not None or kind.end is not None)
