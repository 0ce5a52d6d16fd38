"""ClickHouse's system tables over the datasets. Grafana's plug-in fills its menus from them."""

from __future__ import annotations

from collections.abc import Iterable

from lakebed.query.dialects.analytics_engine.dataset import COLUMNS, text

__all__ = ["DATABASE", "SYSTEM", "system_sql"]

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
    """DuckDB SQL of the table `table` of SYSTEM."""
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
