"""GrafanaRoutes: Grafana's JSON data source, answered by templates, reports and the SQL of Analytics Engine."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal, hints_included
from lakebed.api.openapi.document import operation
from lakebed.api.responses import json_response
from lakebed.api.tables import while_connected
from lakebed.concurrency import run_in_thread
from lakebed.errors import QueryRefused
from lakebed.query.templates.templates import library
from lakebed.reports.reports import REPORTS, signature_of

__all__ = ["GrafanaRoutes"]


class FrameColumn(msgspec.Struct):
    """A column; a time is milliseconds since 1970."""

    text: str
    type: Literal["time", "number", "string"]


class Table(msgspec.Struct, tag_field="type", tag="table"):
    """Rows in the order of the columns."""

    columns: list[FrameColumn]
    rows: list[list[Any]]


class Series(msgspec.Struct, tag_field="type", tag="timeseries"):
    """A line of a graph: values and their milliseconds since 1970."""

    target: str
    datapoints: list[tuple[Any, int]]


def table_of(table: pa.Table) -> Table:
    """All columns and rows of `table`."""
    columns = [FrameColumn(field.name, _kind(field.type)) for field in table.schema]
    return Table(columns, [list(row) for row in _rows(table)])


def series_of(table: pa.Table) -> list[Series]:
    """A series for each column of numbers and each combination of texts, over the first column of times.

    Raises:
        QueryRefused: there is no column of times, or none of numbers.
    """
    kinds = [_kind(field.type) for field in table.schema]
    if "time" not in kinds or "number" not in kinds:
        hint = "toStartOfHour(timestamp) AS t, count() AS n; or use the format table"
        raise QueryRefused("series need a column of times and one of numbers", hint=hint)
    time_column = kinds.index("time")
    labels = [number for number, kind in enumerate(kinds) if kind == "string"]
    values = [number for number, kind in enumerate(kinds) if kind == "number"]
    series: dict[str, list[tuple[Any, int]]] = {}
    for row in _rows(table):
        label = ", ".join("" if row[number] is None else str(row[number]) for number in labels)
        for number in values:
            parts = [label] if labels and len(values) == 1 else [label, table.column_names[number]]
            if row[time_column] is not None:
                name = " ".join(part for part in parts if part)
                series.setdefault(name, []).append((row[number], row[time_column]))
    return [Series(name, points) for name, points in series.items()]


def choices(table: pa.Table) -> Iterator[tuple[str, str]]:
    """The text and value of each row: its first two columns, or its only column as both."""
    for row in _rows(table):
        texts = ["" if value is None else str(value) for value in row]
        if texts:
            yield texts[0], texts[1] if len(texts) > 1 else texts[0]


def _kind(kind: pa.DataType) -> Literal["time", "number", "string"]:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "number" if is_number else "string"


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(value, date):
        return _plain(datetime.combine(value, time(), UTC))
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (int, str)) else str(value)


_SQL = "sql"
_MAX_TARGETS = 20
_RANGE = ("start", "end")
_REFUSALS = [404, 422, 429, 503, 504]


class Span(msgspec.Struct, rename={"start": "from", "end": "to"}):
    """The time range of the dashboard, in ISO 8601."""

    start: str
    end: str


class PanelTarget(msgspec.Struct):
    """One query of a panel: `target` is a value of /metrics, `payload` its arguments."""

    target: str = ""
    payload: Any = None
    hide: bool = False


class PanelQuery(msgspec.Struct):
    """The queries of a panel. Other fields that Grafana sends are ignored."""

    targets: list[PanelTarget]
    range: Span | None = None


class VariableQuery(msgspec.Struct):
    """The query of a variable: `target` in `payload` is a statement, or a value of /metrics beside its arguments."""

    payload: dict[str, Any]
    range: Span | None = None


class PayloadName(msgspec.Struct):
    """The names of a metric and of one of its fields."""

    metric: str
    name: str


class Option(msgspec.Struct):
    """An option of a field."""

    label: str
    value: str


class Field(msgspec.Struct, rename="camel"):
    """The field of the panel's form for an argument of a metric."""

    name: str
    label: str
    type: Literal["input", "textarea", "select"] = "input"
    placeholder: str = ""
    options: list[Option] = []


class Metric(msgspec.Struct):
    """A query that a panel may send, with its arguments."""

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
        """200 if the key may query: for "Save & test" of Grafana's JSON data source."""
        self._auth.admit(request, "read")
        return Response()

    @operation(scope="read", body=dict[str, Any], body_required=False, answer=list[Metric])
    async def metrics(self, request: Request) -> Response:
        """The metrics of a panel, with their arguments: every template, every report, and SQL of Analytics Engine."""
        self._auth.admit(request, "read")
        return json_response(_metrics())

    @operation(scope="read", body=PayloadName, answer=list[Option])
    async def options(self, request: Request) -> Response:
        """The options of a field of a metric."""
        self._auth.admit(request, "read")
        query = decoded(await self._body.read(request), PayloadName, "field of a metric")
        fields = [field for metric in _metrics() if metric.value == query.metric for field in metric.payloads]
        return json_response([option for field in fields if field.name == query.name for option in field.options])

    @operation(scope="read", body=PanelQuery, answer=list[Table | Series], refusals=_REFUSALS)
    async def query(self, request: Request) -> Response:
        """The data of a panel: a table for each target, or with `"format": "time_series"` its series.

        A template or report with the arguments `start` and `end` gets the dashboard's, unless its payload sets them.
        """
        target = self._auth.existing(self._auth.admit(request, "read"))
        query = decoded(await self._body.read(request), PanelQuery, "query of a panel")
        if len(query.targets) > _MAX_TARGETS:
            raise Refusal(400, "INVALID_BODY", f"A panel has at most {_MAX_TARGETS} targets", limit=_MAX_TARGETS)
        frames: list[Table | Series] = []
        for panel_target in query.targets:
            if panel_target.target and not panel_target.hide:
                payload = _object(panel_target.payload)
                form = payload.pop("format", "table")
                table = await while_connected(request, _answer(target, panel_target.target, payload, query.range))
                frames += await run_in_thread("answer", functools.partial(_frames, table, form))
        return json_response(frames)

    @operation(scope="read", body=VariableQuery, answer=list[Choice], refusals=_REFUSALS)
    async def variable(self, request: Request) -> Response:
        """The values of a variable: the only column of an answer, or its first two as text and value."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        query = decoded(await self._body.read(request), VariableQuery, "query of a variable")
        payload = dict(query.payload)
        name = str(payload.pop("target", ""))
        if name not in {metric.value for metric in _metrics()}:
            name, payload = _SQL, {"sql": name}
        table = await while_connected(request, _answer(target, name, payload, query.range))
        return json_response([Choice(text, value) for text, value in choices(table)])


async def _answer(target: Any, name: str, payload: dict[str, Any], span: Span | None) -> Any:
    """The answer to a metric as an Arrow table.

    Raises:
        Refusal: 400, there is no such metric, or an argument is invalid. And the errors of the query.
    """
    kind, _, title = name.partition(":")
    with hints_included():
        if kind == _SQL:
            return (await target.analytics_engine(str(payload.get("sql", "")))).table
        if kind == "template" and title in library():
            names = [parameter.name for parameter in library()[title].parameters]
            arguments = {name: value for name, value in payload.items() if value != ""}  # "" is a field left empty
            return (await target.template(title, _with_range(names, arguments, span))).arrow()
        if kind == "report" and title in REPORTS:
            arguments = _with_range(signature_of(title).types, _object(payload.get("arguments")), span)
            return (await target.report_untrusted(title, arguments)).arrow()
    raise Refusal(400, "INVALID_BODY", f"There is no metric {name[:40]!r}: POST /grafana/metrics lists them")


def _with_range(names: Any, arguments: Mapping[str, Any], span: Span | None) -> dict[str, Any]:
    """`arguments`, with the dashboard's range if the metric has `start` and `end` and neither is set."""
    if span is None or any(name in arguments for name in _RANGE) or not all(name in names for name in _RANGE):
        return dict(arguments)
    return {**arguments, "start": span.start, "end": span.end}


def _object(payload: Any) -> dict[str, Any]:
    """The payload as an object; it may be sent as an object or as the JSON text of one."""
    if payload in (None, ""):
        return {}
    if isinstance(payload, str):
        return decoded(payload.encode(), dict[str, Any], "object with arguments")
    if not isinstance(payload, dict):
        raise Refusal(
            400, "INVALID_BODY", "The payload must be a JSON object", example={"sql": "SELECT count() FROM requests"}
        )
    return dict(payload)


def _frames(table: Any, form: Any) -> list[Table] | list[Series]:
    with hints_included():
        return series_of(table) if form == "time_series" else [table_of(table)]


@functools.cache
def _metrics() -> list[Metric]:
    statement = Field(
        "sql", "SQL", "textarea", "SELECT toStartOfHour(timestamp) AS t, count() AS n FROM requests GROUP BY t"
    )
    metrics = [Metric("SQL of Analytics Engine", _SQL, [statement, _FORMAT])]
    for template in library().values():
        fields = [Field(item.name, item.name, placeholder=item.about) for item in template.parameters]
        metrics.append(Metric(template.title, f"template:{template.name}", [*fields, _FORMAT]))
    arguments = Field("arguments", "Arguments", "textarea", '{"events": ["Order"]}')
    return metrics + [Metric(f"Report: {name}", f"report:{name}", [arguments, _FORMAT]) for name in REPORTS]
