"""How a result goes over the wire: JSON, NDJSON, CSV, Arrow. Text is made a thousand rows at a time.

JSON has fewer kinds of values than SQL, and programs that read it fewer still. Nothing is rounded on the way: an
integer that a double cannot hold is text (most JSON readers would round it), so is a decimal; NaN and the infinities,
which JSON lacks, are the texts "NaN", "Infinity" and "-Infinity"; bytes are Base64. The type of each column is beside
them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.api.errors import Refusal
from lakebed.query.result import Result

__all__ = ["ARROW", "CSV", "FORMATS", "JSON", "NDJSON", "chosen"]

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"

_ROWS = 1000
_EXACT = (1 << 53) - 1  # beyond it a double has gaps
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = (int, float, Decimal)


def chosen(accept: str) -> str:
    """The format that an Accept header likes best; of several that it likes alike, the first of `FORMATS`.

    Raises:
        Refusal: 406, there is none.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    likes = {name: _liking(name, ranges) for name in FORMATS}
    best = max(likes, key=lambda name: likes[name])
    if likes[best] <= 0:
        message = f"Nothing of this can be answered: there are {', '.join(FORMATS)}"
        raise Refusal(406, "NOT_ACCEPTABLE", message, accept=accept[:200])
    return best


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0) if math.isfinite(float(quality)) else 0.0
    except ValueError:
        return name, 0.0


def _liking(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that has `name` says of it."""
    for wanted in (name, f"{name.partition('/')[0]}/*", "*/*"):
        said = [quality for range_, quality in ranges if range_ == wanted]
        if said:
            return max(said)
    return 0.0


def _json(result: Result) -> Iterator[bytes]:
    table = result.arrow()
    columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
    yield b'{"columns":' + msgspec.json.encode(columns) + b',"rows":['
    between = b""
    for rows in _rows(table, _plain):
        yield between + msgspec.json.encode(rows)[1:-1]
        between = b","
    start, end = result.seq
    yield b'],"tiers":%b,"seq":[%d,%d],"ms":%.1f}' % (
        msgspec.json.encode(result.tiers),
        start,
        end,
        result.elapsed_ms,
    )


def _ndjson(result: Result) -> Iterator[bytes]:
    table = result.arrow()
    names, encoder = table.column_names, msgspec.json.Encoder()
    for rows in _rows(table, _plain):
        yield encoder.encode_lines([dict(zip(names, row, strict=True)) for row in rows])


def _csv(result: Result) -> Iterator[bytes]:
    """RFC 4180. NULL is empty, empty text is `""`."""
    table = result.arrow()
    yield (",".join(map(_cell, table.column_names)) + "\r\n").encode()
    for rows in _rows(table, _same):
        yield "".join(",".join(map(_cell, row)) + "\r\n" for row in rows).encode()


def _arrow(result: Result) -> Iterator[bytes]:
    sink, table = _Pieces(), result.arrow()
    with pa.PythonFile(sink, "w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=10 * _ROWS):
            writer.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


FORMATS: Mapping[str, Callable[[Result], Iterator[bytes]]] = {JSON: _json, NDJSON: _ndjson, CSV: _csv, ARROW: _arrow}


class _Pieces:
    """A file for Arrow; what was written since the last look is taken out of it."""

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

    def taken(self) -> bytes:
        written, self._written = self._written, []
        return b"".join(written)


def _rows(table: pa.Table, made: Callable[[Any], Any]) -> Iterator[list[list[Any]]]:
    for first in range(0, table.num_rows, _ROWS):
        piece = table.slice(first, _ROWS)
        columns = [[made(value) for value in column.to_pylist()] for column in piece.columns]
        yield [list(row) for row in zip(*columns, strict=True)]


def _same(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    """`value` as JSON can say it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, pa.MonthDayNano):
        return [_plain(one) for one in value]
    return value if isinstance(value, float) and math.isfinite(value) else _text(value)


def _text(value: Any) -> str:
    return next((said(value) for kind, said in _TEXTS if isinstance(value, kind)), None) or str(value)


_TEXTS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (float, lambda value: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"),
    (Decimal, "{:f}".format),  # 0.000000000, not 0E-9
    (datetime, lambda value: value.isoformat().replace("+00:00", "Z")),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: f"{value.total_seconds():.6f} seconds"),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (pa.MonthDayNano, lambda value: f"{value.months} months {value.days} days {value.nanoseconds} nanoseconds"),
)


def _cell(value: Any) -> str:
    """A field of CSV. Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers do not."""
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
    if not text or any(mark in text for mark in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
