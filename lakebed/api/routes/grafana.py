"""Grafana: what its JSON data source asks, answered by templates, reports and Analytics Engine's SQL."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal, hints_included
from lakebed.api.openapi.operation import operation
from lakebed.api.responses import json_response, while_connected
from lakebed.api.routes.grafana_frames import Series, Table, choices, series_of, table_of
from lakebed.concurrency import run_in_thread
from lakebed.query.templates.template import library
from lakebed.reports.catalog import REPORTS, signature_of

__all__ = ["GrafanaRoutes"]

_SQL = "sql"
_MOST_TARGETS = 20
_RANGE = ("start", "end")
_REFUSALS = [404, 422, 429, 503, 504]


class Span(msgspec.Struct, rename={"start": "from", "end": "to"}):
    """The range of the dashboard, ISO 8601."""

    start: str
    end: str


class PanelTarget(msgspec.Struct):
    """One question of a panel: `target` is a value of /metrics, `payload` what it takes."""

    target: str = ""
    payload: Any = None
    hide: bool = False


class PanelQuery(msgspec.Struct):
    """What a panel shows; of what GrafanaRoutes sends beside it nothing is needed."""

    targets: list[PanelTarget]
    range: Span | None = None


class VariableQuery(msgspec.Struct):
    """What fills a variable: `payload` has as `target` a statement, or a value of /metrics beside what that takes."""

    payload: dict[str, Any]
    range: Span | None = None


class PayloadName(msgspec.Struct):
    """A field of a metric."""

    metric: str
    name: str


class Option(msgspec.Struct):
    """What can be chosen."""

    label: str
    value: str


class Field(msgspec.Struct, rename="camel"):
    """What a metric takes."""

    name: str
    label: str
    type: Literal["input", "textarea", "select"] = "input"
    placeholder: str = ""
    options: list[Option] = []


class Metric(msgspec.Struct):
    """What a panel can ask for."""

    label: str
    value: str
    payloads: list[Field]


class Choice(msgspec.Struct, rename={"text": "__text", "value": "__value"}):
    """A value of a variable."""

    text: str
    value: str


_FORMAT = Field("format", "Format", "select", options=[Option("Table", "table"), Option("Time series", "time_series")])


class GrafanaRoutes:
    """`GET /grafana`, `POST /grafana/metrics`, `/metric-payload-options`, `/query`, `/variable`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/grafana", self.connected, methods=["GET"]),
            Route("/grafana/", self.connected, methods=["GET"], include_in_schema=False),
            Route("/grafana/metrics", self.metrics, methods=["POST"]),
            Route("/grafana/metric-payload-options", self.options, methods=["POST"]),
            Route("/grafana/query", self.query, methods=["POST"]),
            Route("/grafana/variable", self.variable, methods=["POST"]),
        ]

    @operation(scope="read")
    async def connected(self, request: Request) -> Response:
        """Whether the key may ask: for "Save & test" of Grafana's JSON data source."""
        self._auth.admit(request, "read")
        return Response()

    @operation(scope="read", body=dict[str, Any], body_required=False, answer=list[Metric])
    async def metrics(self, request: Request) -> Response:
        """What a panel can ask for: every template, every report, and SQL of Analytics Engine; and what each takes."""
        self._auth.admit(request, "read")
        return json_response(_metrics())

    @operation(scope="read", body=PayloadName, answer=list[Option])
    async def options(self, request: Request) -> Response:
        """What can be chosen for a field of a metric."""
        self._auth.admit(request, "read")
        asked = decoded(await self._body.read(request), PayloadName, "field of a metric")
        fields = [field for one in _metrics() if one.value == asked.metric for field in one.payloads]
        return json_response([one for field in fields if field.name == asked.name for one in field.options])

    @operation(scope="read", body=PanelQuery, answer=list[Table | Series], refusals=_REFUSALS)
    async def query(self, request: Request) -> Response:
        """What a panel shows: a table for each target, or with `"format": "time_series"` its series.

        A template or report that takes `start` and `end` has those of the dashboard unless its payload says others.
        """
        target = self._auth.existing(self._auth.admit(request, "read"))
        asked = decoded(await self._body.read(request), PanelQuery, "query of a panel")
        if len(asked.targets) > _MOST_TARGETS:
            raise Refusal(400, "INVALID_BODY", f"A panel has at most {_MOST_TARGETS} targets", limit=_MOST_TARGETS)
        shown: list[Table | Series] = []
        for one in asked.targets:
            if one.target and not one.hide:
                payload = _object(one.payload)
                form = payload.pop("format", "table")
                found = await while_connected(request, _answer(target, one.target, payload, asked.range))
                shown += await run_in_thread("answer", functools.partial(_shown, found, form))
        return json_response(shown)

    @operation(scope="read", body=VariableQuery, answer=list[Choice], refusals=_REFUSALS)
    async def variable(self, request: Request) -> Response:
        """The values of a variable: the first column of an answer, or of two the text and the value."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        asked = decoded(await self._body.read(request), VariableQuery, "query of a variable")
        payload = dict(asked.payload)
        name = str(payload.pop("target", ""))
        if name not in {one.value for one in _metrics()}:
            name, payload = _SQL, {"sql": name}
        found = await while_connected(request, _answer(target, name, payload, asked.range))
        return json_response([Choice(text, value) for text, value in choices(found)])


async def _answer(target: Any, name: str, payload: dict[str, Any], span: Span | None) -> Any:
    """The answer as Arrow. Raises Refusal, and what the question raises."""
    kind, _, which = name.partition(":")
    with hints_included():
        if kind == _SQL:
            return (await target.analytics_engine(str(payload.get("sql", "")))).table
        if kind == "template" and which in library():
            takes = [one.name for one in library()[which].parameters]
            given = {one: value for one, value in payload.items() if value != ""}  # a field that was left empty
            return (await target.template(which, _spanned(takes, given, span))).arrow()
        if kind == "report" and which in REPORTS:
            given = _object(payload.get("arguments"))
            return (await target.report_untrusted(which, _spanned(signature_of(which).types, given, span))).arrow()
    raise Refusal(400, "INVALID_BODY", f"There is no metric {name[:40]!r}: POST /grafana/metrics lists them")


def _spanned(takes: Any, given: Mapping[str, Any], span: Span | None) -> dict[str, Any]:
    """What was given, and the dashboard's range where it is taken and was not given."""
    if span is None or any(name in given for name in _RANGE) or not all(name in takes for name in _RANGE):
        return dict(given)
    return {**given, "start": span.start, "end": span.end}


def _object(payload: Any) -> dict[str, Any]:
    """A payload: an object, or the text of one."""
    if payload in (None, ""):
        return {}
    if isinstance(payload, str):
        return decoded(payload.encode(), dict[str, Any], "object with arguments")
    if not isinstance(payload, dict):
        raise Refusal(400, "INVALID_BODY", "A payload is an object", example={"sql": "SELECT count() FROM requests"})
    return dict(payload)


def _shown(table: Any, form: Any) -> list[Table] | list[Series]:
    with hints_included():
        return series_of(table) if form == "time_series" else [table_of(table)]


@functools.cache
def _metrics() -> list[Metric]:
    statement = Field(
        "sql", "SQL", "textarea", "SELECT toStartOfHour(timestamp) AS t, count() AS n FROM requests GROUP BY t"
    )
    found = [Metric("SQL of Analytics Engine", _SQL, [statement, _FORMAT])]
    for template in library().values():
        fields = [Field(one.name, one.name, placeholder=one.about) for one in template.parameters]
        found.append(Metric(template.title, f"template:{template.name}", [*fields, _FORMAT]))
    arguments = Field("arguments", "Arguments", "textarea", '{"events": ["Order"]}')
    return found + [Metric(f"Report: {name}", f"report:{name}", [arguments, _FORMAT]) for name in REPORTS]
