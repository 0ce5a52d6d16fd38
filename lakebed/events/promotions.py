"""Promoted properties: JSON members that have a typed column of their own.

One expression computes such a column wherever it is needed (sealing, archiving, the tail in memory, files written
before the promotion), so a query gives the same answer wherever a row is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
import pyarrow as pa

from lakebed.errors import PromotionConflict
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.sql_engine import SqlEngine

__all__ = [
    "BUILT_IN",
    "Promotion",
    "as_promotions",
    "column_sql",
    "columns_of",
    "property_sql",
    "quoted",
    "schema_of",
    "with_promoted",
]

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_ .$-]{0,99}$")
# `person_id` is computed by the `events` view.
_RESERVED = frozenset(BASE_COLUMNS) | {"person_id"}


class _Kind(msgspec.Struct, frozen=True):
    arrow: pa.DataType
    sql: str  # {text} is the member as text, NULL when absent


# A value that does not convert is NULL; the JSON keeps the original. Text such as "nan" would be the result of every
# max(), so only finite numbers convert to float; BIGINT casts round in DuckDB, so only whole numbers convert to int.
_KINDS: dict[type, _Kind] = {
    str: _Kind(pa.string(), "{text}"),
    float: _Kind(pa.float64(), "CASE WHEN isfinite(try_cast({text} AS DOUBLE)) THEN try_cast({text} AS DOUBLE) END"),
    int: _Kind(pa.int64(), r"CASE WHEN regexp_full_match({text}, '-?\d+(\.0*)?') THEN try_cast({text} AS BIGINT) END"),
    bool: _Kind(pa.bool_(), "CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"),
    Decimal: _Kind(pa.decimal128(38, 9), "try_cast({text} AS DECIMAL(38, 9))"),
    datetime: _Kind(pa.timestamp("us", tz="UTC"), "try_cast({text} AS TIMESTAMPTZ)"),
}
_TYPES = {kind.__name__: kind for kind in _KINDS}


class Promotion(msgspec.Struct, frozen=True, order=True):
    """A property and the type of its column. `type` is one of str, float, int, bool, Decimal, datetime."""

    name: str
    type: str

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's Arrow type."""
        return _KINDS[_TYPES[self.type]].arrow

    @property
    def sql(self) -> str:
        """DuckDB SQL that computes the column from `properties`."""
        return _KINDS[_TYPES[self.type]].sql.format(text=property_sql(self.name))


# Usage and performance, promoted out of the box. Order matters: Iceberg field ids 14 to 21 follow it.
BUILT_IN = (
    Promotion("quantity", "Decimal"),
    Promotion("unit", "str"),
    Promotion("sku", "str"),
    Promotion("organization_id", "str"),
    Promotion("duration_ms", "float"),
    Promotion("status_code", "int"),
    Promotion("path", "str"),
    Promotion("method", "str"),
)


def as_promotions(promote: Mapping[str, type], known: Iterable[Promotion] = BUILT_IN) -> tuple[Promotion, ...]:
    """`known`, followed by the new promotions of `promote`, in order.

    Raises:
        PromotionConflict: a name is reserved or invalid, a type is unknown, or a type differs from the one in `known`.
    """
    promotions = {promotion.name: promotion for promotion in known}
    by_lower_name = {name.lower(): name for name in promotions}
    for name, kind in promote.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise PromotionConflict(
                f"property {name!r} cannot be promoted",
                hint="Choose a valid column name that is not the name of a column of events",
            )
        if kind not in _KINDS:
            raise PromotionConflict(f"{name} cannot be promoted as {kind!r}", hint=f"Use one of {', '.join(_TYPES)}")
        if by_lower_name.setdefault(name.lower(), name) != name:
            raise PromotionConflict(
                f"{name} and {by_lower_name[name.lower()]} differ only in case", hint="Promote one: SQL ignores case"
            )
        new = Promotion(name, kind.__name__)
        if promotions.setdefault(name, new) != new:
            raise PromotionConflict(
                f"{name} is promoted as {promotions[name].type} in this object, not as {kind.__name__}",
                hint="The type of a column cannot change: promote the property with its old type",
                name=name,
            )
    return tuple(promotions.values())


def quoted(identifier: str) -> str:
    """`identifier` as a quoted SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def property_sql(name: str) -> str:
    """DuckDB SQL for a top-level member of `properties` as text. NULL if the member is absent."""
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "json_extract_string(properties, '" + path.replace("'", "''") + "')"


def column_sql(name: str, promotions: Iterable[Promotion]) -> str:
    """DuckDB SQL for the column `name` of `events`; for any other name, the top-level property as text."""
    columns = {*BASE_COLUMNS, "person_id", *(promotion.name for promotion in promotions)}
    return quoted(name) if name in columns else property_sql(name)


def columns_of(promotions: Sequence[Promotion]) -> tuple[str, ...]:
    """The columns that consumers and queries get: the base columns, then the promoted columns."""
    return (*BASE_COLUMNS, *(promotion.name for promotion in promotions))


def schema_of(promotions: Sequence[Promotion]) -> pa.Schema:
    """The Arrow schema of `columns_of`."""
    return pa.schema([*SCHEMA, *(pa.field(promotion.name, promotion.arrow_type) for promotion in promotions)])


def with_promoted(table: pa.Table, promotions: Iterable[Promotion], engine: SqlEngine) -> pa.Table:
    """`table` (base columns) with a column for each missing promotion. Blocks; keeps the order of rows."""
    missing = [promotion for promotion in promotions if promotion.name not in table.column_names]
    if not missing:
        return table
    columns = ", ".join(f"{promotion.sql} AS {quoted(promotion.name)}" for promotion in missing)
    computed = engine.arrow(f"SELECT {columns} FROM input", input=table.select(["properties"]))
    for promotion in missing:
        table = table.append_column(
            pa.field(promotion.name, promotion.arrow_type), computed.column(promotion.name).cast(promotion.arrow_type)
        )
    return table
