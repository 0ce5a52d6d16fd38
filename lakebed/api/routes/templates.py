"""Templates: named questions with parameters."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import operation
from lakebed.api.responses import json_response
from lakebed.api.tables import ACCEPT, TABLE, accepted_format, table_response
from lakebed.query.templates.template import Template, library

__all__ = ["TemplateRoutes"]

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
