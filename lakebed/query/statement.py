"""Parses one SELECT with DuckDB's own parser, finds the tables in it, and refuses statements that do not only read.

On DuckDB 2.0 the type of a statement says too little: a CTE may COPY, INSERT, UPDATE or DELETE, and a few functions run
SQL from text. So the parsed tree is checked as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lakebed.errors import QueryRefused

if TYPE_CHECKING:
    import duckdb

__all__ = ["Statement", "is_count", "mentions_person", "nodes"]

_HINT = "Give exactly one SELECT; it may have CTEs and set operations"
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# These change state, run SQL or read tables that the tree does not show, or take memory addresses.
_FUNCTIONS = frozenset(
    {
        "arrow_scan",
        "arrow_scan_dumb",
        "checkpoint",
        "create_external_resource",
        "deregister_external_resource",
        "destroy_external_resource",
        "disable_logging",
        "disable_profiling",
        "enable_logging",
        "enable_profiling",
        "force_checkpoint",
        "json_execute_serialized_sql",
        "nextval",
        "pandas_scan",
        "python_arrow_scan",
        "python_map_function",
        "query",
        "query_table",
        "register_external_resource",
        "register_external_resource_type",
        "setseed",
        "setval",
        "truncate_duckdb_logs",
        "write_log",
    }
)

_EMPTY: tuple[Any, ...] = (None, False, "", [], {}, {"map": []}, {"type": "ORDER_MODIFIER", "orders": []})
_POSITIONS = frozenset({"query_location", "query_location_length", "alias", "qualified_name", "class", "type"})
_PERSON = "person_id"
_SOURCES = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "TABLE_FUNCTION", "EXPRESSION_LIST")


class Statement(msgspec.Struct, frozen=True):
    """A SELECT that only reads.

    Attributes:
        text: the SQL without a final semicolon; it may end in a comment.
        tables: number of times that each table or CTE is named, in lower case.
        is_count: whether the statement is `SELECT count(*) FROM events`.
        mentions_person: whether the statement may read `person_id` of events.
    """

    text: str
    tables: Mapping[str, int]
    is_count: bool = False
    mentions_person: bool = True

    @classmethod
    def parse(
        cls, sql: str, cursor: duckdb.DuckDBPyConnection, check: Callable[[str, Any], None] | None = None
    ) -> Statement:
        """Parse `sql` with the parser of `cursor`. Blocks.

        Args:
            sql: the user's text.
            cursor: a DuckDB cursor.
            check: called with the text and its tree; raises to refuse them.

        Raises:
            QueryRefused: `sql` is not exactly one SELECT, or does more than read.
            duckdb.Error: DuckDB cannot parse it.
        """
        if not isinstance(sql, str) or not _is_text(sql):
            raise QueryRefused("the SQL is not Unicode text", hint=_HINT)
        statements = cursor.extract_statements(sql)
        if len(statements) != 1:
            raise QueryRefused(f"the SQL has {len(statements)} statements", hint=_HINT)
        kind = statements[0].type.name
        if kind != "SELECT":
            raise QueryRefused(f"the statement is {_named(kind)}, not a SELECT", hint=_HINT)
        text = _without_semicolon(statements[0].query)
        tree = _tree(text, cursor)
        if check is not None:
            check(text, tree)
        return cls(text, _checked_tables(tree), is_count(tree), mentions_person(nodes(tree)))


def _named(kind: str) -> str:
    return "several in one (PIVOT without IN lists is)" if kind == "MULTI" else kind


def _is_text(sql: str) -> bool:
    try:
        return b"\0" not in sql.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _without_semicolon(text: str) -> str:
    import duckdb  # see sql_engine.py

    encoded = bytearray(text.encode())  # tokens are counted in bytes
    starts = [start for start, _ in duckdb.tokenize(text) if not encoded.startswith((b"--", b"/*"), start)]
    while starts and encoded[starts[-1]] == ord(";"):
        encoded[starts.pop()] = ord(" ")
    return encoded.decode()


def _tree(text: str, cursor: duckdb.DuckDBPyConnection) -> Any:
    ((encoded,),) = cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    answer = msgspec.json.decode(encoded)
    if answer.get("error", True):
        raise QueryRefused(f"the SQL cannot be checked: {answer.get('error_message')}", hint=_HINT)
    return answer["statements"]


def _checked_tables(tree: Any) -> Counter[str]:
    tables: Counter[str] = Counter()
    for node in nodes(tree):
        kind, function = node.get("type"), node.get("function_name")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
            verb = kind.removesuffix("_NODE").removesuffix("_QUERY")
            raise QueryRefused(f"the statement contains {verb}, which does more than read", hint=_HINT)
        if isinstance(function, str) and function.lower() in _FUNCTIONS:
            raise QueryRefused(f"the function {function.lower()} does more than read the named tables", hint=_HINT)
        if kind == "BASE_TABLE":
            tables[str(node.get("table_name")).lower()] += 1
    return tables


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in `tree`, DuckDB's JSON of a statement. Without recursion, as trees may be deep."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def is_count(statements: Any) -> bool:
    """Whether a tree of `json_serialize_sql` is exactly `SELECT count(*) FROM events`. False for unknown members."""
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
    return all(value in _EMPTY for key, value in node.items() if key not in known | _POSITIONS)


def mentions_person(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a tree of `json_serialize_sql` may read `person_id`. True for unknown nodes.

    Only if it may, the query joins identities with people, which costs time.
    """
    last_names: set[str] = set()
    tables: set[str] = set()
    for node in nodes:
        if _sees_any_column(node):
            return True
        if node.get("class") == "COLUMN_REF":
            names = _lowered(node.get("column_names"))
            if _PERSON in names:
                return True
            last_names.update(names[-1:])
        tables.update(_lowered([node.get("alias"), node.get("table_name")]) if node.get("type") in _SOURCES else [])
    return bool(tables & last_names)  # `SELECT events FROM events` reads whole rows


def _sees_any_column(node: Mapping[str, Any]) -> bool:
    source = node.get("from_table")
    return (
        node.get("class") in ("STAR", "POSITIONAL_REFERENCE")
        or node.get("ref_type") == "NATURAL"
        or _PERSON in _lowered(node.get("using_columns"))
        or bool(node.get("column_name_alias"))  # columns are renamed by position
        or (isinstance(source, dict) and source.get("type") not in _SOURCES)
    )


def _lowered(names: Any) -> list[str]:
    return [name.lower() for name in names if isinstance(name, str) and name] if isinstance(names, list) else []
