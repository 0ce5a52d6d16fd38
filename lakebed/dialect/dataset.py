"""Dataset: which events the rows of an Analytics Engine table are, and which of their values its columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lakebed.errors import InvalidDefinition
from lakebed.promotions import Promotion
from lakebed.query.measure import column_sql

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

    def sql(self, name: str, promotions: Iterable[Promotion]) -> str:
        """SQL of the table `name`: DuckDB's, with all of COLUMNS."""
        known = tuple(promotions)
        index = None if self.index1 is None else column_sql(self.index1, known)
        blobs = [column_sql(one, known) for one in self.blobs]
        doubles = [column_sql(one, known) for one in self.doubles]
        return _table(name, f"event = {text(self.event)}", index, blobs, doubles)


def unmapped(name: str) -> str:
    """SQL of a table without a mapping: the data points that were written to it."""
    blobs = [f"json_extract_string(properties, '$.blobs[{number}]')" for number in range(_MOST)]
    doubles = [f"json_extract_string(properties, '$.doubles[{number}]')" for number in range(_MOST)]
    index = "json_extract_string(properties, '$.indexes[0]')"
    return _table(name, f"event = {text(name)} AND {POINTS}", index, blobs, doubles)


POINTS = " AND ".join(
    f"coalesce(json_type(properties, '$.{part}'), '') = 'ARRAY'" for part in ("indexes", "blobs", "doubles")
)
"""Which events are data points."""


def _table(name: str, which: str, index: str | None, blobs: list[str], doubles: list[str]) -> str:
    columns = [
        f"{text(name)} AS dataset",
        "date_trunc('second', timezone('UTC', timestamp)) AS timestamp",
        "CAST(1 AS UINTEGER) AS _sample_interval",
        f"{_as_text(index)} AS index1",
    ]
    numbers = range(1, _MOST + 1)
    columns += [f"{_as_text(dict(enumerate(blobs, 1)).get(number))} AS blob{number}" for number in numbers]
    columns += [f"{_as_number(dict(enumerate(doubles, 1)).get(number))} AS double{number}" for number in numbers]
    return f"SELECT {', '.join(columns)} FROM events WHERE type = 'track' AND {which}"


def _as_text(sql: str | None) -> str:
    return "''" if sql is None else f"coalesce(CAST({sql} AS VARCHAR), '')"


def _as_number(sql: str | None) -> str:
    number = f"TRY_CAST(CAST({sql} AS VARCHAR) AS DOUBLE)"
    return "CAST(0 AS DOUBLE)" if sql is None else f"CASE WHEN isfinite({number}) THEN {number} ELSE 0 END"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
