"""PeopleRoutes and CohortRoutes: identity over HTTP, and the people of saved cohorts."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Scope
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal, definition_errors, hints_included
from lakebed.api.openapi.document import Parameter, operation
from lakebed.api.responses import json_response, refuse_unknown_parameters, whole_number
from lakebed.api.tables import ACCEPT, TABLE, accepted_format, table_response
from lakebed.definitions.definitions import Definition
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person

__all__ = ["CohortRoutes", "PeopleRoutes"]

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
        """The routes of this group. An id may have slashes; only SQL finds a person whose id is `merges`."""
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


_MAX_PEOPLE = 10_000
_PAGE = (
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=_MAX_PEOPLE)], "Maximum number of people; default 100"),
    Parameter("after", str, "Only ids that sort after this one: the last of a page gives the next page"),
    Parameter("as_of", str, "The cohort as it was at this ISO 8601 time"),
)


class SavedCohort(msgspec.Struct, rename="camel"):
    """A cohort: its definition (docs/reports/cohorts.md), its version, and the time when that version was saved."""

    name: str
    version: int
    saved_at: str
    definition: Any


class SizedCohort(SavedCohort, rename="camel"):
    """A cohort, and the number of its people now."""

    people: int


class CohortRoutes:
    """`GET /cohorts`; `GET`, `PUT` and `DELETE /cohorts/{name}`; `GET /cohorts/{name}/people`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group. A name may have slashes; one that ends in `/people` is shown by `GET /cohorts`."""
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
        cohorts = await self._auth.existing(self._auth.admit(request, "read")).cohorts()
        return json_response([_saved(cohort) for cohort in cohorts])

    @operation(scope="read", answer=SizedCohort, refusals=[400, 404, 422, 429, 503, 504])
    async def cohort(self, request: Request) -> Response:
        """A cohort, and the number of its people now."""
        target, name = self._auth.existing(self._auth.admit(request, "read")), request.path_params["name"]
        with definition_errors():
            saved = _saved(await target.cohort(name))
        with hints_included():
            size = await target.report_untrusted("cohort_size", {"cohort": name})
        return json_response(SizedCohort(**msgspec.structs.asdict(saved), people=size.scalar()))

    @operation(scope="read", parameters=[ACCEPT, *_PAGE], answer=TABLE, refusals=[400, 404, 406, 422, 429, 503, 504])
    async def people(self, request: Request) -> Response:
        """The people of a cohort, in order of their ids: `person_id, first_seen, last_seen, events`."""
        caller, kind = self._auth.admit(request, "read"), accepted_format(request)
        arguments: dict[str, Any] = {name: value for name, value in request.query_params.items() if name != "object"}
        unknown = sorted(arguments.keys() - {parameter.name for parameter in _PAGE})
        if unknown:
            message = f"There is no parameter {unknown[0][:40]!r}: see docs/reports/cohorts.md"
            raise Refusal(400, "INVALID_PARAMETER", message)
        if "limit" in arguments:
            arguments["limit"] = whole_number("limit", arguments["limit"], _MAX_PEOPLE)
        arguments["cohort"] = request.path_params["name"]
        work = self._auth.existing(caller).report_untrusted("cohort_people", arguments)
        return await table_response(request, kind, work)

    @operation(scope="admin", body=dict[str, Any], answer=SavedCohort, refusals=[422, 429, 503, 504])
    async def save(self, request: Request) -> Response:
        """Save a cohort under a name. The body is the definition; an existing name gets a new version."""
        caller = self._auth.admit(request, "admin")
        definition = decoded(await self._body.read(request), dict[str, Any], "definition")
        with hints_included():
            saved = await self._auth.object(caller).save_cohort(request.path_params["name"], definition, untrusted=True)
        return json_response(_saved(saved))

    @operation(scope="admin", status=204, refusals=[404, 409])
    async def delete(self, request: Request) -> Response:
        """Delete a cohort, unless others refer to it. Reports with an earlier `as_of` still use the cohort."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        with definition_errors():
            await target.delete_cohort(request.path_params["name"])
        return Response(status_code=204)


def _saved(cohort: Definition) -> SavedCohort:
    return SavedCohort(cohort.name, cohort.version, cohort.at.isoformat(), cohort.body["definition"])
