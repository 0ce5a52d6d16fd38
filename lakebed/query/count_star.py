"""`SELECT count(*) FROM events`: files say how many rows they have, so none of them is opened for it."""

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
    """Whether a tree of `json_serialize_sql` is this question and nothing more. What is not known is more."""
    try:
        ((only,),) = (statements,)
        node = only["node"]
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
    """The events of the files that need not be read for it, and what is left of the relation without them."""
    whole = [part for part in relation.parts if not part.condition]
    mixed = [part for part in whole if relation.documents_in(part)]
    # A file of the log has each of its positions, so its documents are known. So has the archive, if no row was erased:
    # which of its files has a document is not known, since their ranges overlap, but how many there are in all.
    known = sum(relation.documents_in(part) for part in mixed if part.tier == "L1")
    mixed = [part for part in mixed if part.tier == "L3"]
    if mixed and relation.documents is not None:
        archived = [part for part in whole if part.tier == "L3"]
        end = max(part.end_seq for part in archived)
        if sum(part.rows for part in archived) == end:
            known += relation.documents.within(0, end)
            mixed = []
    read = {part.path for part in mixed}
    left = tuple(part for part in relation.parts if part.condition or part.path in read)
    rows = sum(part.rows for part in whole if part.path not in read)
    return rows - known, msgspec.structs.replace(relation, parts=left)


def with_count(answer: pa.Table, rows: int) -> pa.Table:
    """The answer to this question, of `rows` more. With a limit of 0 it has no row to add to."""
    total = pa.array([value + rows for value in answer.column(0).to_pylist()], pa.int64())
    return answer.set_column(0, answer.schema.field(0), total)
