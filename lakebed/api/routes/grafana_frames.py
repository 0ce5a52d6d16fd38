"""Data frames of Grafana, from an Arrow table: a table or time series."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pyarrow as pa

from lakebed.errors import QueryRefused

__all__ = ["Series", "Table", "choices", "series_of", "table_of"]


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
    """The text and value of each row: its first two columns, or twice its only one."""
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
