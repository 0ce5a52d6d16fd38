"""Whether a query can read `person_id`: only then identities are joined with people, which costs time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["mentions_person"]

_COLUMN = "person_id"
_SOURCES = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "TABLE_FUNCTION", "EXPRESSION_LIST")


def mentions_person(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a node of a tree of `json_serialize_sql` may read `person_id`. An unknown node may."""
    last_names: set[str] = set()
    tables: set[str] = set()
    for node in nodes:
        if _sees_any_column(node):
            return True
        if node.get("class") == "COLUMN_REF":
            names = _lowered(node.get("column_names"))
            if _COLUMN in names:
                return True
            last_names.update(names[-1:])
        tables.update(_lowered([node.get("alias"), node.get("table_name")]) if node.get("type") in _SOURCES else [])
    return bool(tables & last_names)  # `SELECT events FROM events` reads whole rows


def _sees_any_column(node: Mapping[str, Any]) -> bool:
    source = node.get("from_table")
    return (
        node.get("class") in ("STAR", "POSITIONAL_REFERENCE")
        or node.get("ref_type") == "NATURAL"
        or _COLUMN in _lowered(node.get("using_columns"))
        or bool(node.get("column_name_alias"))  # columns are renamed by position
        or (isinstance(source, dict) and source.get("type") not in _SOURCES)
    )


def _lowered(names: Any) -> list[str]:
    return [name.lower() for name in names if isinstance(name, str) and name] if isinstance(names, list) else []
