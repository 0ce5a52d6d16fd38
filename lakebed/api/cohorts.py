"""Cohorts: saved, listed and let go. Who is in one, and how many, are reports."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.answer import json_response
from lakebed.api.body import Body
from lakebed.api.errors import Refusal
from lakebed.api.gate import Gate
from lakebed.api.operation import operation
from lakebed.definitions import Definition
from lakebed.errors import InvalidDefinition, QueryRefused

__all__ = ["Cohorts"]


class SavedCohort(msgspec.Struct, rename="camel"):
    """A cohort: its definition, as docs/cohorts.md has it, its version, and when that was saved."""

    name: str
    version: int
    saved_at: str
    definition: Any


class Cohorts:
    """`GET /cohorts`, `PUT` and `DELETE /cohorts/{name}`."""

    def __init__(self, gate: Gate, body: Body) -> None:
        self._gate = gate
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/cohorts", self.cohorts, methods=["GET"]),
            Route("/cohorts/{name:path}", self.save, methods=["PUT"]),
            Route("/cohorts/{name:path}", self.delete, methods=["DELETE"]),
        ]

    @operation(scope="read", answer=list[SavedCohort], refusals=[404])
    async def cohorts(self, request: Request) -> Response:
        """The saved cohorts, by name."""
        found = await self._gate.existing(self._gate.admit(request, "read")).cohorts()
        return json_response([_saved(one) for one in found])

    @operation(scope="admin", body=dict[str, Any], answer=SavedCohort, refusals=[422])
    async def save(self, request: Request) -> Response:
        """Save a cohort under a name. Its body is the definition; a name that is there gets a new version."""
        caller = self._gate.admit(request, "admin")
        try:
            definition = msgspec.json.decode(await self._body.read(request), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, "INVALID_BODY", f"The body is no definition: {error}") from None
        try:
            saved = await self._gate.object(caller).save_cohort(request.path_params["name"], definition, strange=True)
        except QueryRefused as error:
            raise Refusal(400, "QUERY_REFUSED", str(error)) from error
        return json_response(_saved(saved))

    @operation(scope="admin", status=204, refusals=[404])
    async def delete(self, request: Request) -> Response:
        """Let a cohort go. Reports as of an earlier time still know it."""
        target = self._gate.existing(self._gate.admit(request, "admin"))
        try:
            await target.delete_cohort(request.path_params["name"])
        except InvalidDefinition as error:
            raise Refusal(404, "NOT_FOUND", str(error)) from error
        return Response(status_code=204)


def _saved(one: Definition) -> SavedCohort:
    return SavedCohort(one.name, one.version, one.at.isoformat(), one.body["definition"])
