"""DuckDB SQL for the columns and properties that a rollup names."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lakebed.events.event import BASE_COLUMNS
from lakebed.events.promotions import Promotion, property_sql, quoted

__all__ = ["PERSON", "Column", "column"]

PERSON = "person_id"
_BASE = dict.fromkeys(BASE_COLUMNS, "str") | {
    "seq": "int",
    "timestamp": "datetime",
    "received_at": "datetime",
    PERSON: "str",
}


class Column(msgspec.Struct, frozen=True):
    """A value that each event has, as SQL.

    Attributes:
        kind: type of the value as in `Promotion.type`: int, float, Decimal, str, bool or datetime.
        sql: SQL for the value, which gives NULL for an absent value or a float that is not finite.
        text: SQL for the value as text; a property that is not promoted has the text of any JSON value.
    """

    kind: str
    sql: str
    text: str


def column(name: str, promotions: Mapping[str, Promotion]) -> Column:
    """Find the column `name`: a base column, a promoted column, or else a top-level property, read as a number."""
    kind = _BASE.get(name) or (promotions[name].type if name in promotions else None)
    if kind is None:
        text = property_sql(name)
        number = f"try_cast({text} AS DOUBLE)"
        return Column("float", f"CASE WHEN isfinite({number}) THEN {number} END", text)
    sql = quoted(name)
    if kind == "datetime":
        sql = f"CASE WHEN isfinite({sql}) THEN {sql} END"
    return Column(kind, sql, sql if kind == "str" else f"CAST({sql} AS VARCHAR)")
