from __future__ import annotations

import duckdb
import pytest

from lakebed.errors import QueryRefused
from lakebed.query.statement import Statement
from lakebed.sql_engine import SqlEngine

ENGINE = SqlEngine(threads=1, memory_bytes=1 << 28)


def parse(sql: str) -> Statement:
    cursor = ENGINE.cursor()
    try:
        return Statement.parse(sql, cursor)
    finally:
        cursor.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "FROM events",
        "VALUES (1)",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
        "SUMMARIZE events",
        "SELECT query FROM events WHERE event = 'COPY x TO y; DELETE FROM z'",
        "SELECT * FROM read_csv('file.csv')",
        "SELECT ?, ?",
    ],
)
def test_reading_is_allowed(sql):
    """A single statement that only reads passes, whatever its form."""
    assert parse(sql).text == sql


WRITES = [
    "COPY (SELECT 1) TO '{}'",
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
]


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT 1\0",
        "SELECT '\ud800'",
        *WRITES,
        *(f"WITH q AS ({write} RETURNING *) SELECT * FROM q" for write in WRITES[1:]),
        "WITH q AS (COPY (SELECT 1) TO 'x.csv') SELECT * FROM q",
        "SELECT * FROM (WITH q AS (COPY (SELECT 1) TO 'x.csv') SELECT * FROM q)",
        "CREATE TABLE x AS SELECT 1",
        "ATTACH 'x.db'",
        "SET threads = 1",
        "PRAGMA enable_profiling",
        "EXPLAIN ANALYZE SELECT 1",
        "CALL pragma_version()",
        "INSTALL httpfs",
        "CHECKPOINT",
        "BEGIN",
        "PIVOT events ON event USING count(*)",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM QUERY_table('events')",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT nextval('s')",
        "SELECT * FROM (SELECT (SELECT setval('s', 1)))",
        "SELECT * FROM enable_logging()",
    ],
)
def test_anything_else_is_refused(sql, tmp_path):
    """More than one statement, and SQL that does more than read, is refused with a hint."""
    # DuckDB 1.5 does not even parse CTEs that write.
    with pytest.raises((QueryRefused, duckdb.ParserException), match=r"Give exactly one SELECT|A CTE needs a SELECT"):
        parse(sql.replace("{}", str(tmp_path / "x.csv")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ;; -- end; really", "SELECT 1    -- end; really"),
        ("; SELECT 'a;b';", "SELECT 'a;b'"),
        ("SELECT 'ünï;cödé 🎉' AS \"🎉;\" /* ; ü */ ; -- ö;", "SELECT 'ünï;cödé 🎉' AS \"🎉;\" /* ; ü */   -- ö;"),
        ("SELECT 1 -- ;", "SELECT 1 -- ;"),
    ],
)
def test_the_final_semicolon_goes(sql, text):
    """Semicolons at the end are taken away, so that the text can be a subquery; those in texts and comments stay."""
    assert parse(sql).text.strip() == text
    cursor = ENGINE.cursor()
    assert len(cursor.sql(f"SELECT * FROM (\n{parse(sql).text}\n)").fetchall()) == 1
    cursor.close()


def test_tables_are_counted():
    """Every table that the text names is counted, at any depth, in lower case; table functions are not."""
    statement = parse(
        "WITH q AS (SELECT * FROM Events) SELECT * FROM q, events e JOIN main.people p ON true, range(3) "
        "WHERE EXISTS (SELECT 1 FROM (SELECT * FROM revenue UNION SELECT * FROM events))"
    )
    assert dict(statement.tables) == {"q": 1, "events": 3, "people": 1, "revenue": 1}
