"""What the name of a column or property means in DuckDB."""

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
    """A value of an event.

    Attributes:
        kind: int, float, Decimal, str, bool or datetime, as in `Promotion.type`.
        sql: the value, NULL when absent or, for a float, not finite.
        text: the same as text; of a property that is not promoted, whatever it is.
    """

    kind: str
    sql: str
    text: str


def column(name: str, promotions: Mapping[str, Promotion]) -> Column:
    """Base columns and promoted ones by their name; any other name is a top-level property, a number."""
    kind = _BASE.get(name) or (promotions[name].type if name in promotions else None)
    if kind is None:
        text = property_sql(name)
        number = f"try_cast({text} AS DOUBLE)"
        return Column("float", f"CASE WHEN isfinite({number}) THEN {number} END", text)
    sql = quoted(name)
    if kind == "datetime":
        sql = f"CASE WHEN isfinite({sql}) THEN {sql} END"
    return Column(kind, sql, sql if kind == "str" else f"CAST({sql} AS VARCHAR)")
