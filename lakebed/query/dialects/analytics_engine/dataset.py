"""Dataset: which events the rows of an Analytics Engine table are, and which of their values its columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from lakebed.errors import InvalidDefinition
from lakebed.events.promotions import Promotion, column_sql

__all__ = ["COLUMNS", "DATASET", "POINTS", "Dataset", "text", "unmapped"]

DATASET = "dataset"
"""The kind under which mappings are saved."""

_MOST = 20
COLUMNS = {
    "dataset": "S",
    "timestamp": "T",
    "_sample_interval": "U",
    "index1": "S",
    **{f"blob{number}": "S" for number in range(1, _MOST + 1)},
    **{f"double{number}": "N" for number in range(1, _MOST + 1)},
}
"""Each column of a dataset and its kind: S text, T a time in UTC, N a number, U a whole one of at least 0."""

_FORM = '{"event": "api.request", "index1": "organization_id", "blobs": ["method"], "doubles": ["duration_ms"]}'


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping: names are columns of `events`, promoted ones, or else top-level properties.

    Attributes:
        event: the name of the events that are its rows.
        index1: what is in `index1`; None is empty text.
        blobs: what is in `blob1`, `blob2` … as text, empty where an event has none.
        doubles: what is in `double1`, `double2` … as a number, 0 where an event has none.
    """

    event: str
    index1: str | None = None
    blobs: tuple[str, ...] = ()
    doubles: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: Any) -> Dataset:
        """Read a mapping. Raises InvalidDefinition."""
        try:
            found = msgspec.convert(body, cls)
        except msgspec.ValidationError as error:
            raise InvalidDefinition(f"the mapping cannot be read: {error}", hint=f"Write {_FORM}") from None
        names = (found.event, *found.blobs, *found.doubles, *([] if found.index1 is None else [found.index1]))
        if max(len(found.blobs), len(found.doubles)) > _MOST or not all(names):
            raise InvalidDefinition(f"a mapping has at most {_MOST} blobs and doubles, and no empty name", hint=_FORM)
        return found

    def sql(self, name: str, promotions: Iterable[Promotion], columns: Collection[str] = tuple(COLUMNS)) -> str:
        """SQL of the table `name`: DuckDB's, with those of COLUMNS that are wanted."""
        known = tuple(promotions)
        index = None if self.index1 is None else column_sql(self.index1, known)
        blobs = [column_sql(one, known) for one in self.blobs]
        doubles = [column_sql(one, known) for one in self.doubles]
        return _table(name, f"event = {text(self.event)}", index, blobs, doubles, columns)


def unmapped(name: str, columns: Collection[str] = tuple(COLUMNS)) -> str:
    """SQL of a table without a mapping: the data points that were written to it."""
    blobs = [f"json_extract_string(properties, '$.blobs[{number}]')" for number in range(_MOST)]
    doubles = [f"json_extract_string(properties, '$.doubles[{number}]')" for number in range(_MOST)]
    index = "json_extract_string(properties, '$.indexes[0]')"
    return _table(name, f"event = {text(name)} AND {POINTS}", index, blobs, doubles, columns)


POINTS = " AND ".join(
    f"coalesce(json_type(properties, '$.{part}'), '') = 'ARRAY'" for part in ("indexes", "blobs", "doubles")
)
"""Which events are data points."""


def _table(
    name: str, which: str, index: str | None, blobs: list[str], doubles: list[str], columns: Collection[str]
) -> str:
    made = {
        "dataset": text(name),
        "timestamp": "date_trunc('second', timezone('UTC', timestamp))",
        "_sample_interval": "CAST(1 AS UINTEGER)",
        "index1": _as_text(index),
    }
    for at in range(_MOST):
        made[f"blob{at + 1}"] = _as_text(blobs[at] if at < len(blobs) else None)
        made[f"double{at + 1}"] = _as_number(doubles[at] if at < len(doubles) else None)
    # A short text is read sooner; one column there must be.
    wanted = [one for one in COLUMNS if one in columns] or ["dataset"]
    listed = ", ".join(f"{made[one]} AS {one}" for one in wanted)
    return f"SELECT {listed} FROM events WHERE type = 'track' AND {which}"


def _as_text(sql: str | None) -> str:
    return "''" if sql is None else f"coalesce(CAST({sql} AS VARCHAR), '')"


def _as_number(sql: str | None) -> str:
    number = f"TRY_CAST(CAST({sql} AS VARCHAR) AS DOUBLE)"
    return "CAST(0 AS DOUBLE)" if sql is None else f"CASE WHEN isfinite({number}) THEN {number} ELSE 0 END"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
