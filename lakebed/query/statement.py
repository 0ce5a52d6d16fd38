"""One SELECT, as DuckDB's own parser sees it: what is refused, and which tables it names.

On DuckDB 2.0 the type of a statement says too little: a CTE may COPY, INSERT, UPDATE or DELETE, and a few functions run
SQL that they are given as text. So the parsed tree is checked as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lakebed.errors import QueryRefused
from lakebed.query.count_star import is_count
from lakebed.query.person_columns import mentions_person

if TYPE_CHECKING:
    import duckdb

__all__ = ["Statement", "nodes"]

_HINT = "Give exactly one SELECT; it may have CTEs and set operations"
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# They change state, run or name what the tree does not show, or take addresses of memory.
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


class Statement(msgspec.Struct, frozen=True):
    """A SELECT that only reads.

    Attributes:
        text: without a final semicolon; it may end in a comment.
        tables: how often each table is named, in lower case. Names of CTEs are among them.
        is_count: whether it asks for the number of events and nothing else.
        mentions_person: whether it may see `person_id` of events.
    """

    text: str
    tables: Mapping[str, int]
    is_count: bool = False
    mentions_person: bool = True

    @classmethod
    def parse(
        cls, sql: str, cursor: duckdb.DuckDBPyConnection, check: Callable[[str, Any], None] | None = None
    ) -> Statement:
        """Read `sql` with the parser of `cursor`. Blocks.

        Args:
            sql: as it was given.
            cursor: whose parser.
            check: raises when it dislikes the text and its tree.

        Raises:
            QueryRefused: when it is not exactly one SELECT, or would do more than read.
            duckdb.Error: when it cannot be parsed.
        """
        if not isinstance(sql, str) or not _is_text(sql):
            raise QueryRefused("the SQL is no Unicode text", hint=_HINT)
        found = cursor.extract_statements(sql)
        if len(found) != 1:
            raise QueryRefused(f"the SQL has {len(found)} statements", hint=_HINT)
        kind = found[0].type.name
        if kind != "SELECT":
            raise QueryRefused(f"the statement is {_named(kind)}, not a SELECT", hint=_HINT)
        text = _without_semicolon(found[0].query)
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
    import duckdb  # see engine.py

    encoded = bytearray(text.encode())  # tokens are counted in bytes
    starts = [at for at, _ in duckdb.tokenize(text) if not encoded.startswith((b"--", b"/*"), at)]
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
            raise QueryRefused(f"a part of the statement is {verb}, which does more than read", hint=_HINT)
        if isinstance(function, str) and function.lower() in _FUNCTIONS:
            raise QueryRefused(f"the function {function.lower()} does more than read what is named", hint=_HINT)
        if kind == "BASE_TABLE":
            tables[str(node.get("table_name")).lower()] += 1
    return tables


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in `tree`, what DuckDB says that a statement is. Without recursion: it may be deep."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
