"""Cohorts: saved, listed, shown and let go; and who is in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal, hints_included
from lakebed.api.formats import chosen
from lakebed.api.openapi.operation import Parameter, operation
from lakebed.api.responses import ACCEPT, TABLE, json_response, table_response
from lakebed.definitions.definitions import Definition
from lakebed.errors import InvalidDefinition

__all__ = ["CohortRoutes"]

_MOST = 10_000
_PAGE = (
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=_MOST)], "At most so many people; 100 unless said"),
    Parameter("after", str, "Only ids that sort after this one: the last of a page gives the next page"),
    Parameter("as_of", str, "The cohort as it was at this ISO 8601 time"),
)


class SavedCohort(msgspec.Struct, rename="camel"):
    """A cohort: its definition, as docs/reports/cohorts.md has it, its version, and when that was saved."""

    name: str
    version: int
    saved_at: str
    definition: Any


class SizedCohort(SavedCohort, rename="camel"):
    """A cohort, and how many people are in it now."""

    people: int


class CohortRoutes:
    """`GET /cohorts`; `GET`, `PUT` and `DELETE /cohorts/{name}`; `GET /cohorts/{name}/people`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers. A name may have slashes; one that ends in `/people` is shown by `GET /cohorts`."""
        return [
            Route("/cohorts", self.cohorts, methods=["GET"]),
            Route("/cohorts/{name:path}/people", self.people, methods=["GET"]),
            Route("/cohorts/{name:path}", self.cohort, methods=["GET"]),
            Route("/cohorts/{name:path}", self.save, methods=["PUT"]),
            Route("/cohorts/{name:path}", self.delete, methods=["DELETE"]),
        ]

    @operation(scope="read", answer=list[SavedCohort], refusals=[404])
    async def cohorts(self, request: Request) -> Response:
        """The saved cohorts, by name."""
        found = await self._auth.existing(self._auth.admit(request, "read")).cohorts()
        return json_response([_saved(one) for one in found])

    @operation(scope="read", answer=SizedCohort, refusals=[400, 404, 422, 429, 503, 504])
    async def cohort(self, request: Request) -> Response:
        """A cohort, and how many people are in it now."""
        target, name = self._auth.existing(self._auth.admit(request, "read")), request.path_params["name"]
        with _known():
            found = _saved(await target.cohort(name))
        with hints_included():
            size = await target.report_untrusted("cohort_size", {"cohort": name})
        return json_response(SizedCohort(**msgspec.structs.asdict(found), people=size.scalar()))

    @operation(scope="read", parameters=[ACCEPT, *_PAGE], answer=TABLE, refusals=[400, 404, 406, 422, 429, 503, 504])
    async def people(self, request: Request) -> Response:
        """Who is in a cohort, in order of their ids: `person_id, first_seen, last_seen, events`."""
        caller, kind = self._auth.admit(request, "read"), chosen(request.headers.get("accept", ""))
        given: dict[str, Any] = {name: value for name, value in request.query_params.items() if name != "object"}
        unknown = sorted(given.keys() - {one.name for one in _PAGE})
        if unknown:
            message = f"There is no parameter {unknown[0][:40]!r}; docs/reports/cohorts.md"
            raise Refusal(400, "INVALID_PARAMETER", message)
        if "limit" in given:
            given["limit"] = _limit(given["limit"])
        asked = {"cohort": request.path_params["name"], **given}
        work = self._auth.existing(caller).report_untrusted("cohort_people", asked)
        with hints_included():
            return await table_response(request, kind, work)

    @operation(scope="admin", body=dict[str, Any], answer=SavedCohort, refusals=[422, 429, 503, 504])
    async def save(self, request: Request) -> Response:
        """Save a cohort under a name. Its body is the definition; a name that is there gets a new version."""
        caller = self._auth.admit(request, "admin")
        definition = decoded(await self._body.read(request), dict[str, Any], "definition")
        with hints_included():
            saved = await self._auth.object(caller).save_cohort(request.path_params["name"], definition, untrusted=True)
        return json_response(_saved(saved))

    @operation(scope="admin", status=204, refusals=[404, 409])
    async def delete(self, request: Request) -> Response:
        """Let a cohort go, unless others are made of it. Reports as of an earlier time still know it."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        with _known():
            await target.delete_cohort(request.path_params["name"])
        return Response(status_code=204)


@contextmanager
def _known() -> Iterator[None]:
    """A cohort that is not there is 404, one that others are made of is 409."""
    try:
        yield
    except InvalidDefinition as error:
        if "used_by" in error.facts:
            raise Refusal(409, "COHORT_IN_USE", str(error), used_by=error.facts["used_by"]) from error
        raise Refusal(404, "NOT_FOUND", str(error)) from error


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MOST)) or not 0 < int(text) <= _MOST:
        raise Refusal(400, "INVALID_PARAMETER", f"limit must be a whole number from 1 to {_MOST}", limit=text[:40])
    return int(text)


def _saved(one: Definition) -> SavedCohort:
    return SavedCohort(one.name, one.version, one.at.isoformat(), one.body["definition"])
