"""`SELECT count(*) FROM events`: the number of rows of each file is known, so none is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.query.relation import Relation

__all__ = ["counted", "is_count", "with_count"]

_EMPTY: tuple[Any, ...] = (None, False, "", [], {}, {"map": []}, {"type": "ORDER_MODIFIER", "orders": []})
_PLACE = frozenset({"query_location", "query_location_length", "alias", "qualified_name", "class", "type"})


def is_count(statements: Any) -> bool:
    """Whether a tree of `json_serialize_sql` is exactly this query. A tree with unknown members is not."""
    try:
        ((statement,),) = (statements,)
        node = statement["node"]
        (function,), table = node["select_list"], node["from_table"]
        return (
            (node["type"], function["type"], table["type"]) == ("SELECT_NODE", "FUNCTION", "BASE_TABLE")
            and function["function_name"] == "count_star"
            and table["table_name"].lower() == "events"
            and node.get("aggregate_handling", "STANDARD_HANDLING") == "STANDARD_HANDLING"
            and _is_bare(node, {"select_list", "from_table", "aggregate_handling"})
            and _is_bare(function, {"function_name"})
            and _is_bare(table, {"table_name"})
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _is_bare(node: Mapping[str, Any], known: set[str]) -> bool:
    return all(value in _EMPTY for key, value in node.items() if key not in known | _PLACE)


def counted(relation: Relation) -> tuple[int, Relation]:
    """The number of rows in whole files, and the rest of the relation without these files."""
    left = tuple(part for part in relation.parts if part.condition)
    rows = sum(part.rows for part in relation.parts if not part.condition)
    return rows, msgspec.structs.replace(relation, parts=left)


def with_count(answer: pa.Table, rows: int) -> pa.Table:
    """`answer` with `rows` added to its count. With a limit of 0 it has no row, and stays as it is."""
    total = pa.array([value + rows for value in answer.column(0).to_pylist()], pa.int64())
    return answer.set_column(0, answer.schema.field(0), total)
