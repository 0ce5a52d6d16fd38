"""The corpus of statements, against plain Python and against chDB on the same rows."""

from __future__ import annotations

import asyncio
import json

import pytest

from lakebed import Analytics, QueryError
from lakebed.query.dialects.analytics_engine.answer import encoded
from tests.query.dialects.analytics_engine.corpus import EACH, ONLY_HERE, ROWS, WHOLE, rows

pytestmark = pytest.mark.integration

STATEMENTS = {f"SELECT {text} AS x FROM t": rows(value) for text, value in EACH.items()} | WHOLE


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The rows that answer each statement."""
    return asyncio.run(answered(tmp_path_factory.mktemp("shop")))


async def answered(root):
    """Run all statements on an object that has the rows and one other event."""
    names = {"index1": "i", "blob1": "b1", "blob2": "b2", "double1": "d1", "double2": "d2"}
    results, expressions = {}, list(EACH)
    async with Analytics("shop", root=root) as shop:
        mapping = {"event": "Hit", "index1": "i", "blobs": ["b1", "b2"], "doubles": ["d1", "d2"]}
        await shop.save_dataset("t", mapping)
        await shop.track("Other")
        await shop.batch(
            {
                "event": "Hit",
                "timestamp": row["timestamp"],
                "properties": {names[name]: value for name, value in row.items() if value != "" and name in names},
            }
            for row in ROWS
        )
        # Each query starts a process, so twenty expressions share one query.
        for first in range(0, len(expressions), 20):
            chunk = expressions[first : first + 20]
            listed = ", ".join(f"{text} AS x{number}" for number, text in enumerate(chunk))
            columns = zip(*await asked(shop, f"SELECT {listed} FROM t"), strict=True)
            results |= dict(zip((f"SELECT {text} AS x FROM t" for text in chunk), map(single, columns), strict=False))
        for sql in STATEMENTS:
            if sql not in results or len(results[sql]) != len(STATEMENTS[sql]):
                results[sql] = await asked(shop, sql)
        assert await shop.check() == []
    return results


async def asked(shop, sql):
    """The rows of a statement; an error becomes a row, so that only the test of this statement fails."""
    try:
        answer = json.loads(encoded(await shop.analytics_engine(sql)))
    except QueryError as error:
        return [[str(error)]]
    return [list(row.values()) for row in answer["data"]]


def single(values):
    """A column as rows."""
    return [[value] for value in values]


def test_there_are_enough() -> None:
    """At least eighty statements, none of them twice."""
    assert len(STATEMENTS) >= 80


@pytest.mark.parametrize("sql", STATEMENTS)
def test_as_plain_python(answers, sql):
    """The rows are those of the definition."""
    assert close(sorted(answers[sql], key=repr), sorted(STATEMENTS[sql], key=repr))


@pytest.fixture(scope="module")
def clickhouse():
    """chDB with a table of the same rows."""
    chdb = pytest.importorskip("chdb", reason="chDB is the second oracle: pip install 'lakebed[bench]'")
    blobs = ", ".join(f"'' AS blob{n}" for n in range(3, 21))
    doubles = ", ".join(f"0.0 AS double{n}" for n in range(3, 21))
    lines = []
    for row in ROWS:
        texts = ", ".join("'" + row[name].replace("'", "\\'") + "' AS " + name for name in ("index1", "blob1", "blob2"))
        numbers = ", ".join(f"toFloat64({row[name]}) AS {name}" for name in ("double1", "double2"))
        at = f"toDateTime({int(row['timestamp'].timestamp())}, 'UTC') AS timestamp"
        lines.append(f"SELECT 't' AS dataset, {at}, 1 AS _sample_interval, {texts}, {numbers}, {blobs}, {doubles}")
    connection = chdb.connect(":memory:")
    connection.query(f"CREATE TABLE t ENGINE = Memory AS {' UNION ALL '.join(lines)}")

    def ask(sql):
        statement = f"{sql} SETTINGS session_timezone = 'UTC' FORMAT JSONCompact"
        return json.loads(str(connection.query(statement, "Raw")))["data"]

    yield ask
    connection.close()


@pytest.mark.parametrize("sql", [value for value in STATEMENTS if not any(part in value for part in ONLY_HERE)])
def test_as_clickhouse(answers, clickhouse, sql):
    """The rows are ClickHouse's; its 64-bit integers may be text."""
    expected = [[number(value) for value in row] for row in clickhouse(sql)]
    actual = [[number(value) for value in row] for row in answers[sql]]
    assert close(sorted(actual, key=repr), sorted(expected, key=repr))


def number(value):
    """A number as a float, also one in a text."""
    try:
        return float(value) if isinstance(value, (str, int, float)) else value
    except ValueError:
        return value


def close(actual, expected):
    """Equal; floats to twelve digits."""
    return len(actual) == len(expected) and all(
        actual_value == pytest.approx(expected_value, rel=1e-12)
        if isinstance(expected_value, (int, float))
        else actual_value == expected_value
        for actual_row, expected_row in zip(actual, expected, strict=True)
        for actual_value, expected_value in zip(actual_row, expected_row, strict=True)
    )
