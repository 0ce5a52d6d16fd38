"""PeopleRoutes: identity over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Scope
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import Parameter, operation
from lakebed.api.parameters import refuse_unknown_parameters, whole_number
from lakebed.api.responses import json_response
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person

__all__ = ["PeopleRoutes"]

_LIMIT, _MAX_LIMIT = 100, 10_000
_AS_OF = Parameter("as_of", str, "Only what was received up to this ISO 8601 time; the answer never changes again")
_LISTED = (
    Parameter("id", str, "Only the merges of the person who has this id"),
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=_MAX_LIMIT)], f"Maximum number; default {_LIMIT}"),
)


class MergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two ids whose people are merged. The person of `a` keeps its id. `why` goes into the audit."""

    a: str
    b: str
    why: str | None = None


class UnmergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of a merge to undo. `why` goes into the audit."""

    merge_id: str
    why: str | None = None


class PeopleRoutes:
    """`GET /people/{id}`, `GET /people/merges`, `POST /people/merge`, `POST /people/unmerge`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group. An id may have slashes; a person whose id is `merges` is found by SQL."""
        return [
            Route("/people/merges", self.merges, methods=["GET"]),
            Route("/people/merge", self.merge, methods=["POST"]),
            Route("/people/unmerge", self.unmerge, methods=["POST"]),
            Route("/people/{id:path}", self.person, methods=["GET"]),
        ]

    @operation(scope="read", parameters=[_AS_OF], answer=Person, refusals=[404, 422, 504])
    async def person(self, request: Request) -> Response:
        """The person who has this user id or anonymous id: all ids, traits with their history, groups."""
        target = self._object(request, "read")
        refuse_unknown_parameters(request, ["as_of"])
        person = await target.person(request.path_params["id"], as_of=request.query_params.get("as_of"))
        if person is None:
            raise Refusal(404, "NOT_FOUND", "No event has this id")
        return json_response(person)

    @operation(scope="read", parameters=_LISTED, answer=list[Merge], refusals=[404])
    async def merges(self, request: Request) -> Response:
        """The audit: merges and unmerges with time, cause and reason; newest first."""
        target = self._object(request, "read")
        refuse_unknown_parameters(request, sorted(parameter.name for parameter in _LISTED))
        query = request.query_params
        limit = whole_number("limit", query.get("limit", str(_LIMIT)), _MAX_LIMIT)
        return json_response(await target.merges(query.get("id"), limit=limit))

    @operation(scope="admin", body=MergeBody, answer=Merge, refusals=[404, 409, 503, 507])
    async def merge(self, request: Request) -> Response:
        """Merge two people into one."""
        target = self._object(request, "admin")
        fields = decoded(await self._body.read(request), MergeBody, "merge")
        return json_response(await target.merge(fields.a, fields.b, why=fields.why))

    @operation(scope="admin", body=UnmergeBody, answer=Merge, refusals=[404, 409, 503, 507])
    async def unmerge(self, request: Request) -> Response:
        """Undo a merge."""
        target = self._object(request, "admin")
        fields = decoded(await self._body.read(request), UnmergeBody, "unmerge")
        return json_response(await target.unmerge(fields.merge_id, why=fields.why))

    def _object(self, request: Request, scope: Scope) -> Any:
        return self._auth.existing(self._auth.admit(request, scope))
