"""A dataset: the events that are rows of an Analytics Engine table; and ClickHouse's system tables over datasets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from lakebed.errors import InvalidDefinition
from lakebed.events.promotions import Promotion, column_sql

__all__ = ["COLUMNS", "DATABASE", "DATASET", "POINTS", "SYSTEM", "Dataset", "system_sql", "unmapped"]

DATASET = "dataset"
"""The kind of the definitions that hold mappings."""

_MAX_COLUMNS = 20
COLUMNS = {
    "dataset": "S",
    "timestamp": "T",
    "_sample_interval": "U",
    "index1": "S",
    **{f"blob{number}": "S" for number in range(1, _MAX_COLUMNS + 1)},
    **{f"double{number}": "N" for number in range(1, _MAX_COLUMNS + 1)},
}
"""Each column of a dataset and its kind: S text, T a time in UTC, N a number, U a whole one of at least 0."""

_FORM = '{"event": "api.request", "index1": "organization_id", "blobs": ["method"], "doubles": ["duration_ms"]}'


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Maps columns of a dataset to values in events: columns, promoted columns, or else top-level properties.

    Attributes:
        event: name of the events that are rows.
        index1: name of the value that `index1` shows; None means empty text.
        blobs: names of the values that `blob1`, `blob2` … show: text, empty if an event has no such value.
        doubles: names of the values that `double1`, `double2` … show: numbers, 0 if an event has no such value.
    """

    event: str
    index1: str | None = None
    blobs: tuple[str, ...] = ()
    doubles: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: Any) -> Dataset:
        """Make a mapping from the JSON object `body`. Raises InvalidDefinition."""
        try:
            dataset = msgspec.convert(body, cls)
        except msgspec.ValidationError as error:
            raise InvalidDefinition(f"the mapping cannot be read: {error}", hint=f"Write {_FORM}") from None
        names = (dataset.event, *dataset.blobs, *dataset.doubles)
        if dataset.index1 is not None:
            names += (dataset.index1,)
        if max(len(dataset.blobs), len(dataset.doubles)) > _MAX_COLUMNS or not all(names):
            raise InvalidDefinition(
                f"the mapping has more than {_MAX_COLUMNS} blobs or doubles, or an empty name", hint=_FORM
            )
        return dataset

    def sql(self, name: str, promotions: Iterable[Promotion], columns: Collection[str] = tuple(COLUMNS)) -> str:
        """DuckDB SQL for the table `name` with the given columns, which are some of COLUMNS."""
        known = tuple(promotions)
        index = None if self.index1 is None else column_sql(self.index1, known)
        blobs = [column_sql(blob, known) for blob in self.blobs]
        doubles = [column_sql(double, known) for double in self.doubles]
        return _table(name, f"event = {text(self.event)}", index, blobs, doubles, columns)


def unmapped(name: str, columns: Collection[str] = tuple(COLUMNS)) -> str:
    """DuckDB SQL for a dataset without a mapping: it has the data points that were written to the dataset."""
    blobs = [f"json_extract_string(properties, '$.blobs[{number}]')" for number in range(_MAX_COLUMNS)]
    doubles = [f"json_extract_string(properties, '$.doubles[{number}]')" for number in range(_MAX_COLUMNS)]
    index = "json_extract_string(properties, '$.indexes[0]')"
    return _table(name, f"event = {text(name)} AND {POINTS}", index, blobs, doubles, columns)


POINTS = " AND ".join(
    f"coalesce(json_type(properties, '$.{part}'), '') = 'ARRAY'" for part in ("indexes", "blobs", "doubles")
)
"""The SQL condition for events that are data points."""


def _table(
    name: str, which: str, index: str | None, blobs: list[str], doubles: list[str], columns: Collection[str]
) -> str:
    expressions = {
        "dataset": text(name),
        "timestamp": "date_trunc('second', timezone('UTC', timestamp))",
        "_sample_interval": "CAST(1 AS UINTEGER)",
        "index1": _as_text(index),
    }
    for number in range(_MAX_COLUMNS):
        expressions[f"blob{number + 1}"] = _as_text(blobs[number] if number < len(blobs) else None)
        expressions[f"double{number + 1}"] = _as_number(doubles[number] if number < len(doubles) else None)
    # Only named columns: a shorter text is parsed faster. A SELECT needs at least one.
    selected = [column for column in COLUMNS if column in columns] or ["dataset"]
    listed = ", ".join(f"{expressions[column]} AS {column}" for column in selected)
    return f"SELECT {listed} FROM events WHERE type = 'track' AND {which}"


def _as_text(sql: str | None) -> str:
    return "''" if sql is None else f"coalesce(CAST({sql} AS VARCHAR), '')"


def _as_number(sql: str | None) -> str:
    number = f"TRY_CAST(CAST({sql} AS VARCHAR) AS DOUBLE)"
    return "CAST(0 AS DOUBLE)" if sql is None else f"CASE WHEN isfinite({number}) THEN {number} ELSE 0 END"


def text(value: str) -> str:
    """Write a text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


DATABASE = "default"
"""The database of all datasets."""

SYSTEM = {
    "databases": {"name": "S"},
    "tables": {"database": "S", "name": "S"},
    "columns": {"database": "S", "table": "S", "name": "S", "type": "S"},
}
"""Each table of the database `system`, its columns and their kinds."""

_TYPES = {"S": "String", "T": "DateTime", "N": "Float64", "U": "UInt32"}


def system_sql(table: str, datasets: Iterable[str]) -> str:
    """DuckDB SQL for `table`, one of the system tables in SYSTEM."""
    names = f"unnest(CAST([{', '.join(map(text, datasets))}] AS VARCHAR[]))"
    if table == "databases":
        return f"SELECT {text(DATABASE)} AS name"
    if table == "tables":
        return f"SELECT {text(DATABASE)} AS database, {names} AS name"
    columns = ", ".join(f"({text(name)}, {text(_TYPES[kind])})" for name, kind in COLUMNS.items())
    return (
        f'SELECT {text(DATABASE)} AS database, "table", name, type FROM (SELECT {names} AS "table")'
        f" CROSS JOIN (VALUES {columns}) AS each(name, type)"
    )
