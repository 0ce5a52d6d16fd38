"""Statements that hypothesis makes, over rows that it makes: against plain Python, and against chDB."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.query.dialects.analytics_engine.answer import EngineAnswer, encoded
from lakebed.query.dialects.analytics_engine.dataset import COLUMNS
from lakebed.query.dialects.analytics_engine.translation import translate
from tests.query.dialects.analytics_engine.grammar import UNIQUE, literal, same, statements

TEXTS = ["", "a", "GET", "get", "Über", "a_b%", "it's", "back\\slash"]
START = datetime(2026, 1, 5)  # noqa: DTZ001 - as the dialect has it
NOW = datetime(2026, 6, 1, tzinfo=UTC)
TYPES = {"S": pa.string(), "N": pa.float64(), "U": pa.uint32(), "T": pa.timestamp("us")}
EMPTY = {"S": "", "N": 0.0, "U": 1, "T": START}


def streams():
    """Rows of a table: few values, so that they meet."""
    strategy = st.fixed_dictionaries(
        {
            "index1": st.sampled_from(TEXTS),
            "blob1": st.sampled_from(TEXTS),
            "blob2": st.text("aGü %_\\", max_size=3),
            "double1": st.integers(-20, 20).map(lambda n: n / 4),
            "double2": st.integers(-3, 100).map(float),
            "timestamp": st.integers(0, 3 * 86400).map(lambda n: START + timedelta(seconds=n)),
        }
    )
    return st.lists(strategy, max_size=20).map(lambda rows: [row | {UNIQUE: n} for n, row in enumerate(rows)])


@pytest.mark.integration
@settings(max_examples=24, derandomize=True)
@given(rows=streams(), statement=statements())
def test_as_plain_python(rows, statement):
    """Whatever is selected, filtered, grouped, ordered and cut: the rows are those of the definition."""
    table = pa.table(
        {name: pa.array([row.get(name, EMPTY[kind]) for row in rows], TYPES[kind]) for name, kind in COLUMNS.items()}
    )
    with duckdb.connect() as connection:
        connection.register("_dataset", table)
        answer = EngineAnswer("JSON", connection.sql(translate(statement.sql, NOW).sql).to_arrow_table())
    actual = [list(row.values()) for row in json.loads(encoded(answer))["data"]]
    assert same(actual, statement.answer(rows), is_ordered=statement.is_ordered), statement.sql


@pytest.mark.integration
@settings(max_examples=10, derandomize=True)
@given(rows=streams(), statement=statements().filter(lambda statement: "topK" not in statement.sql))
def test_as_clickhouse(rows, statement):
    """The rows of the definition are ClickHouse's, where its functions count characters too."""
    chdb = pytest.importorskip("chdb", reason="chDB is the second oracle: pip install 'lakebed[bench]'")
    expected = statement.answer(rows)
    if any(None in row for row in expected) or not rows:
        return  # of no rows ClickHouse's least and greatest are 0
    lines = " UNION ALL ".join(
        f"SELECT toDateTime({int(row['timestamp'].replace(tzinfo=UTC).timestamp())}, 'UTC') AS timestamp, "
        f"1 AS _sample_interval, toFloat64({row['double1']}) AS double1, toFloat64({row['double2']}) AS double2, "
        f"toFloat64({row[UNIQUE]}) AS {UNIQUE}, "
        + ", ".join(f"{literal(row[name])} AS {name}" for name in ("index1", "blob1", "blob2"))
        for row in rows
    )
    sql = statement.sql.replace("FROM t", f"FROM ({lines}) AS t")
    for name in ("length", "position", "substring"):
        sql = sql.replace(f"{name}(", f"{name}UTF8(")
    answer = str(chdb.query(f"{sql} SETTINGS session_timezone = 'UTC' FORMAT JSONCompact", "Raw"))
    actual = [
        [float(value) if kind == "N" else value for value, kind in zip(row, statement.kinds, strict=True)]
        for row in json.loads(answer)["data"]
    ]
    assert same(actual, expected, is_ordered=statement.is_ordered), statement.sql
