"""Encodes results in ClickHouse's output formats, with ClickHouse's names of types."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

__all__ = ["EngineAnswer", "encoded", "type_name"]

_SIMPLE = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.bool_(): "UInt8",
    pa.date32(): "Date",
}
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


class EngineAnswer(msgspec.Struct, frozen=True):
    """The answer to a statement, not encoded yet.

    Attributes:
        format: "JSON", "JSONEachRow" or "TabSeparated".
        table: the rows.
    """

    format: str
    table: pa.Table


def type_name(kind: pa.DataType) -> str:
    """ClickHouse's name for an Arrow type; "String" for types that ClickHouse does not have."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if pa.types.is_timestamp(kind):
        return "DateTime"
    if pa.types.is_decimal(kind):
        return "Int64" if kind.scale == 0 else "Float64"
    if pa.types.is_list(kind):
        return f"Array({type_name(kind.value_type)})"
    if pa.types.is_struct(kind):
        return f"Tuple({', '.join(type_name(field.type) for field in kind)})"
    return "String"


def encoded(answer: EngineAnswer) -> bytes:
    """Encode an answer as a body. In JSON, infinite numbers and NaN become null, and integers of any size numbers."""
    names = answer.table.column_names
    rows = zip(*(column.to_pylist() for column in answer.table.columns), strict=True)
    if answer.format == "TabSeparated":
        return b"".join(("\t".join(map(_tabbed, row)) + "\n").encode() for row in rows)
    data = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
    if answer.format == "JSONEachRow":
        return b"".join(msgspec.json.encode(row) + b"\n" for row in data)
    meta = [{"name": field.name, "type": type_name(field.type)} for field in answer.table.schema]
    return msgspec.json.encode({"meta": meta, "data": data, "rows": len(data)})


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a line a type
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return [_plain(item) for item in value.values()]
    return value if value is None or isinstance(value, (int, str)) else str(value)


def _tabbed(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    plain = _plain(value)
    if plain is None:
        return "\\N"
    if isinstance(plain, float) and plain.is_integer() and abs(plain) < 1e15:  # noqa: PLR2004 - as ClickHouse writes it
        return str(int(plain))
    return plain.translate(_ESCAPED) if isinstance(plain, str) else msgspec.json.encode(plain).decode()
