"""People: who is who, over HTTP."""

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
from lakebed.api.responses import json_response
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person

__all__ = ["PeopleRoutes"]

_LIMIT, _MAX_LIMIT = 100, 10_000
_AS_OF = Parameter("as_of", str, "Only what was received up to this ISO 8601 time; the answer never changes again")
_LISTED = (
    Parameter("id", str, "Only those of the person who has this id"),
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=_MAX_LIMIT)], f"At most so many; {_LIMIT} unless said"),
)


class MergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two ids whose people are one. `a`'s keeps its id. `why` goes into the audit."""

    a: str
    b: str
    why: str | None = None


class UnmergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of a merge that is to count no more. `why` goes into the audit."""

    merge_id: str
    why: str | None = None


class PeopleRoutes:
    """`GET /people/{id}`, `GET /people/merges`, `POST /people/merge`, `POST /people/unmerge`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers. An id may have slashes; that of a person named `merges` is asked in SQL."""
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
        _check_known(request, {"as_of"})
        found = await target.person(request.path_params["id"], as_of=request.query_params.get("as_of"))
        if found is None:
            raise Refusal(404, "NOT_FOUND", "Nothing was ever heard of this id")
        return json_response(found)

    @operation(scope="read", parameters=_LISTED, answer=list[Merge], refusals=[404])
    async def merges(self, request: Request) -> Response:
        """The audit: who was merged when, by what, and why, or why not; newest first."""
        target = self._object(request, "read")
        _check_known(request, {one.name for one in _LISTED})
        given = request.query_params
        return json_response(await target.merges(given.get("id"), limit=_limit(given.get("limit", str(_LIMIT)))))

    @operation(scope="admin", body=MergeBody, answer=Merge, refusals=[404, 409, 503, 507])
    async def merge(self, request: Request) -> Response:
        """Make one person of two."""
        target = self._object(request, "admin")
        asked = decoded(await self._body.read(request), MergeBody, "merge")
        return json_response(await target.merge(asked.a, asked.b, why=asked.why))

    @operation(scope="admin", body=UnmergeBody, answer=Merge, refusals=[404, 409, 503, 507])
    async def unmerge(self, request: Request) -> Response:
        """Take a merge back."""
        target = self._object(request, "admin")
        asked = decoded(await self._body.read(request), UnmergeBody, "unmerge")
        return json_response(await target.unmerge(asked.merge_id, why=asked.why))

    def _object(self, request: Request, scope: Scope) -> Any:
        return self._auth.existing(self._auth.admit(request, scope))


def _check_known(request: Request, known: set[str]) -> None:
    """An unknown parameter is refused: without it, it would be another question."""
    unknown = sorted(set(request.query_params) - known - {"object"})
    if unknown:
        message = f"There is no parameter {unknown[0][:40]!r}; it takes {', '.join(sorted(known))}"
        raise Refusal(400, "INVALID_PARAMETER", message, parameter=unknown[0][:40])


def _limit(text: str) -> int:
    if (
        not text.isascii()
        or not text.isdecimal()
        or len(text) > len(str(_MAX_LIMIT))
        or not 0 < int(text) <= _MAX_LIMIT
    ):
        message = f"limit must be a whole number from 1 to {_MAX_LIMIT}"
        raise Refusal(400, "INVALID_PARAMETER", message, limit=text[:40])
    return int(text)
