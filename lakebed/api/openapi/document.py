"""OpenApi: the document that describes every route, made of the descriptions beside the routes by `operation()`."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from lakebed.api.responses import json_response

__all__ = ["JSON", "OpenApi", "Parameter", "described", "operation", "operation_of"]

JSON = "application/json"

_Answer = TypeVar("_Answer", bound=Callable[..., Any])


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a route.

    Attributes:
        name: the name in the URL or header. A name in the path needs no Parameter unless it has a description.
        type: the type of its value, for the schema: `int`, `Literal["hour", "day"]`,
            `Annotated[int, msgspec.Meta(ge=1)]` …
        about: a sentence for people.
        place: the part of the request that has it.
        required: whether a request without it is 400.
    """

    name: str
    type: Any = str
    about: str = ""
    place: Literal["query", "path", "header"] = "query"
    required: bool = False


class Operation(msgspec.Struct, frozen=True):
    """The description of one route; `operation` explains each field."""

    summary: str
    description: str
    scope: Literal["write", "read", "admin"] | None
    parameters: tuple[Parameter, ...]
    body: Mapping[str, Any] | None
    body_required: bool
    answers: Mapping[int, tuple[str, Mapping[str, Any]]]
    refusals: tuple[int, ...]
    any_origin: bool


def operation(
    *,
    scope: Literal["write", "read", "admin"] | None = None,
    parameters: Sequence[Parameter] = (),
    body: Any = None,
    body_required: bool = True,
    answer: Any = None,
    status: int = 200,
    refusals: Sequence[int] = (),
    others: Mapping[int, tuple[str, Mapping[str, Any]]] | None = None,
    any_origin: bool | None = None,
) -> Callable[[_Answer], _Answer]:
    """Describe the route handler that this decorates: the first line of its docstring is the summary.

    Args:
        scope: the scope that a key needs; None if no key is needed. 401 and 403 follow from it.
        parameters: parameters of query, path and headers.
        body: the type of a JSON body, or `{media type: type}`. 400, 408, 413 and 415 follow from it.
        body_required: whether a request must have a body.
        answer: the type of the JSON answer, or `{media type: type}`; None if the answer has no body.
        status: the status of the answer.
        refusals: further statuses with the usual error body, such as 404, 409, 422.
        others: further statuses with a body of their own: the meaning, and `{media type: type}`.
        any_origin: whether scripts of any site may call the route and read the answer (CORS); by default if the scope
            is "write": the key of a web page is public anyway.

    A type is any that msgspec has a schema for: a Struct, a TypedDict, `list[int]`, `dict[str, Any]`, `str` for text,
    `bytes` for binary data. A schema can be written out: `Annotated[Any, msgspec.Meta(extra_json_schema={…})]`.
    """

    def describe(handler: _Answer) -> _Answer:
        summary, _, rest = (inspect.getdoc(handler) or "").partition("\n")
        about = Operation(
            summary=summary.strip(),
            description=rest.strip(),
            scope=scope,
            parameters=tuple(parameters),
            body=None if body is None else _by_media_type(body),
            body_required=body_required,
            answers={status: ("As asked", {} if answer is None else _by_media_type(answer))} | dict(others or {}),
            refusals=tuple(refusals),
            any_origin=scope == "write" if any_origin is None else any_origin,
        )
        handler.__operation__ = about  # type: ignore[attr-defined]  # an attribute of a function
        return handler

    return describe


def operation_of(handler: Any) -> Operation | None:
    """The description that `operation` gave `handler`."""
    about: Operation | None = getattr(handler, "__operation__", None)
    return about


def _by_media_type(kind: Any) -> Mapping[str, Any]:
    return kind if isinstance(kind, Mapping) else {JSON: kind}


_PLACEHOLDER = re.compile(r"\{(\w+)(:\w+)?\}")
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the user name, the password is empty"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ABOUT = """Product analytics: events in, exact answers out.

Events have Segment's names. A 200 means durable. A key is for one object and one scope; a server without keys answers
its own machine only and asks for none."""


class Fault(msgspec.Struct, frozen=True):
    """The error: a code for programs, a message for people, and facts."""

    code: str
    message: str
    details: dict[str, Any]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of every error response."""

    error: Fault


class OpenApi:
    """`GET /openapi.json`.

    Args:
        routes: the routes to describe. More may be added until the first request for the document.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._document: dict[str, Any] | None = None

    def routes(self) -> list[BaseRoute]:
        """The route of the document."""
        return [Route("/openapi.json", self.openapi, methods=["GET"])]

    @operation(answer=dict[str, Any])
    async def openapi(self, request: Request) -> Response:
        """This document: every route, its parameters, bodies and answers."""
        return json_response(self.document(request.scope.get("root_path", "")))

    def document(self, root_path: str = "") -> dict[str, Any]:
        """The document of OpenAPI 3.1, for an app that is mounted at `root_path`."""
        if self._document is None:
            self._document = _document(list(described(self._routes)))
        return self._document | {"servers": [{"url": root_path or "/"}]}


def described(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str, Operation | None]]:
    """Path, method and description of each route, in order; the description is None if a route has none.

    Routes with `include_in_schema=False`, web sockets and foreign ASGI apps are left out.
    """
    for route in routes:
        if isinstance(route, Mount):
            yield from described(route.routes, prefix + route.path)
        elif isinstance(route, Route) and route.include_in_schema:
            for method in sorted(set(route.methods or ()) - {"HEAD"}):
                handler = getattr(route.endpoint, method.lower(), route.endpoint)
                yield prefix + route.path, method, operation_of(handler)


def _document(routes: Sequence[tuple[str, str, Operation | None]]) -> dict[str, Any]:
    operations = [(path, method, about) for path, method, about in routes if about is not None]
    schemas = _Schemas([about for _, _, about in operations])
    paths: dict[str, dict[str, Any]] = {}
    for path, method, about in operations:
        methods = paths.setdefault(_PLACEHOLDER.sub(r"{\1}", path), {})
        methods[method.lower()] = _operation(path, method, about, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lakebed", "version": importlib.metadata.version("lakebed"), "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _SECURITY_SCHEMES},
    }


def _operation(path: str, method: str, about: Operation, schemas: _Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": "-".join([method.lower(), *re.findall(r"\w+", _PLACEHOLDER.sub(r"\1", path))]),
        "summary": about.summary,
        "description": about.description,
        "parameters": [*_path_parameters(path, about), *_parameters(about, schemas)],
        "responses": _responses(about, schemas),
    }
    if about.body is not None:
        entry["requestBody"] = {"required": about.body_required, "content": schemas.content(about.body)}
    if about.scope is not None:
        entry["security"] = [{scheme: [about.scope]} for scheme in _SECURITY_SCHEMES]
    return entry


def _path_parameters(path: str, about: Operation) -> list[dict[str, Any]]:
    """The parameters of the path that `about` does not describe."""
    described_names = {parameter.name for parameter in about.parameters if parameter.place == "path"}
    names = [name for name, _ in _PLACEHOLDER.findall(path) if name not in described_names]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _parameters(about: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    return [
        {
            "name": parameter.name,
            "in": parameter.place,
            "required": parameter.required or parameter.place == "path",
            "description": parameter.about,
            "schema": schemas.of(parameter.type),
        }
        for parameter in about.parameters
    ]


def _responses(about: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {"description": meaning} | ({"content": schemas.content(content)} if content else {})
        for status, (meaning, content) in about.answers.items()
    }
    refusals = set(about.refusals) | {500, 503}
    if about.parameters or about.body is not None:
        refusals.add(400)
    if about.body is not None:
        refusals |= {408, 413, 415}
    if about.scope is not None:
        refusals |= {401, 403, 404, 429}
    error = {JSON: {"schema": schemas.of(ErrorAnswer)}}
    for status in sorted(refusals):
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase, "content": error})
    return responses


class _Schemas:
    """The JSON schemas of all types that operations name; structs are shared as components."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        contents = [content for about in operations for content in _contents(about)]
        self._types: list[Any] = [ErrorAnswer]
        self._types += [kind for content in contents for kind in content.values()]
        self._types += [parameter.type for about in operations for parameter in about.parameters]
        template = "#/components/schemas/{name}"
        self._schemas, self.components = msgspec.json.schema_components(self._types, ref_template=template)

    def of(self, kind: Any) -> Any:
        return self._schemas[self._types.index(kind)]

    def content(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {media: {"schema": {} if kind is bytes else self.of(kind)} for media, kind in content.items()}


def _contents(about: Operation) -> list[Mapping[str, Any]]:
    return [about.body or {}, *(content for _, content in about.answers.values())]
