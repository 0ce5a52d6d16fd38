"""operation(): the description of a route in the OpenAPI document, written beside the route's handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

__all__ = ["JSON", "Operation", "Parameter", "operation", "operation_of"]

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
        any_origin: whether scripts of any site may call it and read the answer (CORS); by default where the scope is
            "write": the key of a web page is public anyway.

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
