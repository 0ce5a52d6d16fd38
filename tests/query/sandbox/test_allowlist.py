"""The allowlist itself: each name on it exists and is harmless, and no new function is on it."""

from __future__ import annotations

import duckdb
import pytest

from lakebed.errors import QueryRefused
from lakebed.query.sandbox.allowlist import FUNCTIONS, TABLE_FUNCTIONS, check
from lakebed.query.statement import Statement

TABLES = ("events", "people")
NEVER = (
    "read_",
    "duckdb_",
    "pragma_",
    "parquet_",
    "query",
    "glob",
    "getenv",
    "current_setting",
    "sleep",
    "sniff",
    "scan",
)


@pytest.fixture(scope="module")
def cursor():
    with duckdb.connect() as connection:
        yield connection


def parse(cursor, sql, catalog=()):
    Statement.parse(sql, cursor, lambda text, tree: check(text, tree, tables=TABLES, catalog=catalog))


def test_every_name_is_a_function_or_syntax(cursor):
    """Nothing is allowed that DuckDB does not have, except names that it parses into expressions."""
    functions = cursor.execute("SELECT DISTINCT function_name, function_type FROM duckdb_functions()").fetchall()
    scalars = {name for name, kind in functions if kind not in ("table", "table_macro", "pragma")}
    syntax = {"between", "coalesce", "columns", "ifnull", "unnest"}
    newer = {name for name in FUNCTIONS - scalars - syntax if duckdb.__version__.startswith("1.")}
    assert FUNCTIONS - scalars - syntax <= newer
    assert {name for name, kind in functions if kind == "table"} >= TABLE_FUNCTIONS


def test_none_reads_anything():
    """No name on the lists is of a family that reads files, settings, the catalog or SQL."""
    assert not {name for name in FUNCTIONS | TABLE_FUNCTIONS if name.startswith(NEVER) or name.endswith("_scan")}


@pytest.mark.integration
def test_no_function_is_allowed_by_accident(cursor):
    """Each function of this DuckDB that is not on the list is refused when it is called, whatever its name."""
    functions = cursor.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    for (name,) in functions:
        if name.isidentifier() and name not in FUNCTIONS:
            with pytest.raises((QueryRefused, duckdb.Error)):
                parse(cursor, f'SELECT "{name}"(1)')
        if name.isidentifier() and name not in TABLE_FUNCTIONS:
            with pytest.raises((QueryRefused, duckdb.Error)):
                parse(cursor, f'SELECT * FROM "{name}"(1)')


def test_a_cte_reaches_nothing_but_itself(cursor):
    """A CTE may have any name but one of DuckDB's own, which it would open outside its scope."""
    parse(cursor, "WITH mine AS (SELECT 1) SELECT * FROM mine")
    parse(cursor, "WITH events AS (SELECT 1) SELECT * FROM events")
    for name in ("duckdb_views", "DUCKDB_VIEWS", "a.csv", "a/b", "s3:x"):
        with pytest.raises(QueryRefused, match="a CTE is named"):
            parse(cursor, f'WITH "{name}" AS (SELECT 1) SELECT * FROM "{name}"', catalog=("duckdb_views",))
