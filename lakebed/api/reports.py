"""Reports: the questions of product analytics, each at a path of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.body import Body
from lakebed.api.errors import Refusal
from lakebed.api.formats import chosen
from lakebed.api.gate import Gate
from lakebed.api.operation import operation
from lakebed.api.table import ACCEPT, TABLE, table_response
from lakebed.errors import InvalidAsOf, QueryRefused
from lakebed.query.reports import REPORTS
from lakebed.query.result import Result
from lakebed.signature import Signature, each

__all__ = ["Reports"]

_AS_TEXT = {datetime, date, timedelta}  # what JSON has no kind for


class Reports:
    """`POST /reports/{name}`: the body is an object with the arguments of the report, the answer a table."""

    def __init__(self, gate: Gate, body: Body) -> None:
        self._gate = gate
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [Route(f"/reports/{name}", self._report(name), methods=["POST"]) for name in REPORTS]

    def _report(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            caller = self._gate.admit(request, "read")
            kind = chosen(request.headers.get("accept", ""))
            arguments = _arguments(await self._body.read(request))
            work = self._gate.existing(caller).report_untrusted(name, arguments)
            return await table_response(request, kind, _explained(work))

        answer.__doc__ = _said(name)
        described = operation(
            scope="read",
            parameters=[ACCEPT],
            body=_body_of(name),
            answer=TABLE,
            refusals=[404, 406, 422, 429, 503, 504],
        )
        return described(answer)


async def _explained(work: Awaitable[Result]) -> Result:
    """Tells the hint of an error that an argument made: it says what to write instead, over HTTP as in Python."""
    try:
        return await work
    except InvalidAsOf as error:
        raise Refusal(400, "INVALID_AS_OF", str(error)) from error
    except QueryRefused as error:
        raise Refusal(400, "QUERY_REFUSED", str(error)) from error


def _arguments(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The body is no object with the report's arguments: {error}"
        raise Refusal(400, "INVALID_BODY", message) from None


def _said(name: str) -> str:
    """The docstring of a report, up to its arguments: these are described in the body."""
    return (inspect.getdoc(REPORTS[name]) or "").partition("\nArgs:\n")[0].rstrip()


def _body_of(name: str) -> type[msgspec.Struct]:
    """The body that a report takes, as a schema."""
    signature = Signature.of(name, REPORTS[name], without={"inquiry"})
    fields: list[Any] = []
    for parameter, annotation in signature.types.items():
        about = signature.about.get(parameter)
        meta = msgspec.Meta(description=about) if about else msgspec.Meta()
        kind: Any = Annotated.__class_getitem__((_json_type(annotation), meta))  # type: ignore[attr-defined]
        fields.append(
            (parameter, kind, signature.defaults[parameter]) if parameter in signature.defaults else (parameter, kind)
        )
    fields.sort(key=len)
    title = "".join(word.capitalize() for word in name.split("_"))
    return msgspec.defstruct(f"{title}Body", fields)


def _json_type(annotation: Any) -> Any:
    """What JSON has for the type of an argument."""
    kinds = {_json_kind(kind) for kind in each(annotation)}
    if any(kind is Any for kind in kinds):
        return Any
    found: Any = None
    for kind in sorted(kinds, key=repr):
        found = kind if found is None else found | kind
    return found | None if type(None) in _args(annotation) else found


def _args(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _json_kind(kind: Any) -> Any:
    if kind in _AS_TEXT:
        return str
    owner = getattr(kind, "__origin__", None)
    if owner is not None and isinstance(owner, type) and issubclass(owner, Mapping):
        return dict[str, Any]
    if owner is not None and isinstance(owner, type) and issubclass(owner, Sequence):
        return list[_json_type(kind.__args__[0])]  # type: ignore[misc]  # a type made at run time
    return kind
