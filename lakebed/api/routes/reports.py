"""Reports: the questions of product analytics, each at a path of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.openapi.operation import operation
from lakebed.api.tables import ACCEPT, TABLE, accepted_format, table_response
from lakebed.interface.json_schema import body_of
from lakebed.interface.verbs import REPORT_VERBS
from lakebed.reports.catalog import signature_of

__all__ = ["ReportRoutes"]


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
