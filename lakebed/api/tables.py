"""Tables over HTTP: results of queries as JSON, NDJSON, CSV or Arrow. Text is encoded a thousand rows at a time.

JSON has fewer kinds of values than SQL, and programs that read it fewer still. Nothing is rounded: an integer that a
double cannot hold is text (most JSON readers would round it), and so is a decimal; NaN and the infinities, which JSON
lacks, are the texts "NaN", "Infinity" and "-Infinity"; bytes are Base64. The type of each column is beside them.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from lakebed.api.errors import ARGUMENT_ERRORS, Refusal, refusal_with_hint
from lakebed.api.openapi.document import Parameter
from lakebed.errors import QueryBusy
from lakebed.query.result import Result

__all__ = ["ACCEPT", "TABLE", "accepted_format", "table_response", "while_connected"]

_T = TypeVar("_T")

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
_FORMATS = (JSON, NDJSON, CSV, ARROW)

ACCEPT = Parameter("Accept", str, f"{', '.join(_FORMATS)}; default JSON", "header")

_ROWS = 1000
_EXACT = (1 << 53) - 1  # doubles represent every integer up to this one, not beyond
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = (int, float, Decimal)


class Column(msgspec.Struct):
    """A column of the result: its name, and its type in Arrow's words."""

    name: str
    type: str


class Answer(msgspec.Struct):
    """The result: rows as lists in the order of the columns; the tiers they came from and the events they cover."""

    columns: list[Column]
    rows: list[list[Any]]
    tiers: list[str]
    seq: tuple[int, int]
    ms: float


TABLE = {JSON: Answer, NDJSON: str, CSV: str, ARROW: bytes}
"""The responses that `operation` documents for a table."""


def accepted_format(request: Request) -> str:
    """The format that the Accept header of `request` ranks highest; of equal ones the first. Without the header, JSON.

    Raises:
        Refusal: 406, the header accepts none of the formats.
    """
    accept = request.headers.get("accept", "")
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    qualities = {name: _quality(name, ranges) for name in _FORMATS}
    best = max(qualities, key=lambda name: qualities[name])
    if qualities[best] <= 0:
        message = f"The Accept header allows none of the formats {', '.join(_FORMATS)}"
        raise Refusal(406, "NOT_ACCEPTABLE", message, accept=accept[:200])
    return best


def _range(part: str) -> tuple[str, float]:
    """The media range and its quality that one part of an Accept header gives."""
    name, *parameters = (text.strip().lower() for text in part.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0) if math.isfinite(float(quality)) else 0.0
    except ValueError:
        return name, 0.0


def _quality(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that includes the media type `name`; 0 if there is none."""
    for pattern in (name, f"{name.partition('/')[0]}/*", "*/*"):
        qualities = [quality for range_, quality in ranges if range_ == pattern]
        if qualities:
            return max(qualities)
    return 0.0


async def table_response(
    request: Request, kind: str, work: Awaitable[Result], *, hints: bool = True
) -> StreamingResponse:
    """The result of `work` in the format `kind`. `work` is cancelled when the client disconnects.

    Args:
        hints: whether the message of an error in the arguments includes its hint.

    Raises:
        Refusal: 429 or 503, the limit of running queries is reached; or an argument is invalid.
        ClientDisconnect: the client disconnected.
    """
    try:
        result = await while_connected(request, work)
    except QueryBusy as error:
        status = 503 if error.facts.get("scope") == "server" else 429
        raise Refusal(status, "QUERY_BUSY", error.message, headers={"Retry-After": "1"}) from error
    except ARGUMENT_ERRORS as error:
        if not hints:
            raise
        raise refusal_with_hint(error) from error
    headers = {
        "Lakebed-Tiers": ", ".join(result.tiers),
        "Lakebed-Seq": "-".join(map(str, result.seq)),
        "Server-Timing": f"answer;dur={result.elapsed_ms:.1f}",
        "Vary": "Accept",
    }
    return StreamingResponse(_ENCODERS[kind](result), headers=headers, media_type=kind)


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """The result of `work`, which is cancelled when the client disconnects: no other caller waits for it.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    working = asyncio.ensure_future(work)
    disconnected = asyncio.create_task(_disconnected(request))
    either: set[asyncio.Task[Any]] = {working, disconnected}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in either:
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(result: Result) -> Iterator[bytes]:
    table = result.arrow()
    columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
    yield b'{"columns":' + msgspec.json.encode(columns) + b',"rows":['
    separator = b""
    for rows in _rows(table, _plain):
        yield separator + msgspec.json.encode(rows)[1:-1]
        separator = b","
    start, end = result.seq
    yield b'],"tiers":%b,"seq":[%d,%d],"ms":%.1f}' % (msgspec.json.encode(result.tiers), start, end, result.elapsed_ms)


def _ndjson(result: Result) -> Iterator[bytes]:
    table = result.arrow()
    names, encoder = table.column_names, msgspec.json.Encoder()
    for rows in _rows(table, _plain):
        yield encoder.encode_lines([dict(zip(names, row, strict=True)) for row in rows])


def _csv(result: Result) -> Iterator[bytes]:
    """The table as CSV by RFC 4180. NULL is empty, empty text is `""`."""
    table = result.arrow()
    yield (",".join(map(_csv_field, table.column_names)) + "\r\n").encode()
    for rows in _rows(table, _same):
        yield "".join(",".join(map(_csv_field, row)) + "\r\n" for row in rows).encode()


def _arrow(result: Result) -> Iterator[bytes]:
    sink, table = _Pieces(), result.arrow()
    with pa.PythonFile(sink, "w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=10 * _ROWS):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


_ENCODERS: dict[str, Callable[[Result], Iterator[bytes]]] = {JSON: _json, NDJSON: _ndjson, CSV: _csv, ARROW: _arrow}


class _Pieces:
    """A file that Arrow writes to; `take` returns the bytes written since the last call."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(self._written[-1])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        written, self._written = self._written, []
        return b"".join(written)


def _rows(table: pa.Table, convert: Callable[[Any], Any]) -> Iterator[list[list[Any]]]:
    for first in range(0, table.num_rows, _ROWS):
        part = table.slice(first, _ROWS)
        columns = [[convert(value) for value in column.to_pylist()] for column in part.columns]
        yield [list(row) for row in zip(*columns, strict=True)]


def _same(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    """`value` as a value of JSON."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, pa.MonthDayNano):
        return [_plain(item) for item in value]
    return value if isinstance(value, float) and math.isfinite(value) else _text(value)


def _text(value: Any) -> str:
    return next((format_value(value) for kind, format_value in _TEXTS if isinstance(value, kind)), None) or str(value)


_TEXTS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (float, lambda value: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"),
    (Decimal, "{:f}".format),  # 0.000000000, not 0E-9
    (datetime, lambda value: value.isoformat().replace("+00:00", "Z")),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: f"{value.total_seconds():.6f} seconds"),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (pa.MonthDayNano, lambda value: f"{value.months} months {value.days} days {value.nanoseconds} nanoseconds"),
)


def _csv_field(value: Any) -> str:
    """A CSV field. Text that a spreadsheet would take for a formula begins with an apostrophe; numbers do not."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _NUMBERS):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    if isinstance(value, (Mapping, list, tuple)) and not isinstance(value, pa.MonthDayNano):
        text = msgspec.json.encode(_plain(value)).decode()
    else:
        text = value if isinstance(value, str) else _text(value)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    if not text or any(character in text for character in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
