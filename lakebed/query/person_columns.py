"""Whether a question can see `person_id`: only then it is asked who is who, which costs a join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["mentions_person"]

_COLUMN = "person_id"
_SOURCES = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "TABLE_FUNCTION", "EXPRESSION_LIST")


def mentions_person(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any node of a tree of `json_serialize_sql` may stand for `person_id`. What is not known may."""
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
    return bool(tables & last_names)  # `SELECT events FROM events` is a whole row


def _sees_any_column(node: Mapping[str, Any]) -> bool:
    source = node.get("from_table")
    return (
        node.get("class") in ("STAR", "POSITIONAL_REFERENCE")
        or node.get("ref_type") == "NATURAL"
        or _COLUMN in _lowered(node.get("using_columns"))
        or bool(node.get("column_name_alias"))  # columns get other names by their place
        or (isinstance(source, dict) and source.get("type") not in _SOURCES)
    )


def _lowered(found: Any) -> list[str]:
    return [name.lower() for name in found if isinstance(name, str) and name] if isinstance(found, list) else []
