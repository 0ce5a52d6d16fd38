"""The SQL of the macros of Grafana's plug-in for ClickHouse, over made-up rows, against plain Python."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import duckdb
import pyarrow as pa
import pytest

from lakebed.errors import QueryRefused
from lakebed.query.dialects.analytics_engine.answer import EngineAnswer, encoded
from lakebed.query.dialects.analytics_engine.translation import translate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
START = datetime(2026, 1, 5)  # noqa: DTZ001 - as the dialect has it
ROWS = [(START + timedelta(seconds=41 * n), f"p{n * n % 3}", float(n * 7 % 30)) for n in range(40)]
T = "(intDiv(toUInt32(timestamp), 60) * 60) * 1000 AS t"
GROUPED = f"SELECT {T}, blob1 AS label, max(double1) AS top FROM default.hits GROUP BY t, label ORDER BY label, t"


def answer(sql):
    """The whole answer to a statement over ROWS."""
    times, texts, numbers = zip(*ROWS, strict=True)
    with duckdb.connect() as connection:
        connection.register("_dataset", pa.table({"timestamp": times, "blob1": texts, "double1": numbers}))
        table = connection.sql(translate(sql, NOW).sql).to_arrow_table()
    return json.loads(encoded(EngineAnswer("JSON", table)))


def groups():
    """The greatest value of each label in each minute, in order of label and time."""
    maxima = {}
    for at, label, value in ROWS:
        key = (label, int(at.replace(tzinfo=UTC).timestamp()) // 60 * 60_000)
        maxima[key] = max(maxima.get(key, value), value)
    return sorted(maxima.items())


def by_time(values):
    """Pairs of label and value for each time."""
    pairs_by_time = {}
    for label, t, value in values:
        pairs_by_time.setdefault(t, []).append([label, value])
    return [[t, sorted(pairs)] for t, pairs in sorted(pairs_by_time.items())]


def test_columns():
    """Each time has its labels and values, as the plug-in makes series of them; the type is right."""
    sql = f"SELECT t, groupArray((label, top)) AS groupArr FROM ({GROUPED}) GROUP BY t ORDER BY t"
    result = answer(sql)
    assert [column["type"] for column in result["meta"]] == ["UInt64", "Array(Tuple(String, Float64))"]
    assert [list(row.values()) for row in result["data"]] == by_time((*key, value) for key, value in groups())


@pytest.mark.parametrize("windows", [False, True], ids=["runningDifference", "lagInFrame"])
def test_rate(windows):
    """For each time, the events per second since the previous time; the first time has no previous one."""
    step = "((t - lagInFrame(t, 1, 0) OVER ()) / 1000)" if windows else "runningDifference(t / 1000)"
    result = answer(f"SELECT t, n / {step} AS rate FROM (SELECT {T}, count() AS n FROM hits GROUP BY t ORDER BY t)")
    counts = {}
    for at, _, _ in ROWS:
        t = int(at.replace(tzinfo=UTC).timestamp()) // 60 * 60_000
        counts[t] = counts.get(t, 0) + 1
    times = sorted(counts)
    expected = [counts[t] / ((t - previous) / 1000) for previous, t in pairwise(times)]
    assert [row["rate"] for row in result["data"]][1:] == pytest.approx(expected)
    assert [row["t"] for row in result["data"]] == times


@pytest.mark.parametrize("windows", [False, True], ids=["runningDifference", "lagInFrame"])
def test_per_second_of_each_label(windows):
    """Growth within a label; where it shrank, and at the label's first time, there is no value."""
    if windows:
        previous_label, growth_sql = "lagInFrame(label, 1, label) OVER ()", "(top - lagInFrame(top, 1, 0) OVER ())"
        step = "(t / 1000 - lagInFrame(t / 1000, 1, 0) OVER ())"
    else:
        previous_label, growth_sql, step = (
            "neighbor(label, -1, label)",
            "runningDifference(top)",
            "runningDifference(t / 1000)",
        )
    inner = (
        f"SELECT t, label, if({growth_sql} < 0 OR {previous_label} != label, nan, {growth_sql} / {step}) AS s "
        f"FROM ({GROUPED})"
    )
    result = answer(f"SELECT t, groupArray((label, s)) AS groupArr FROM ({inner}) GROUP BY t ORDER BY t")
    values, last = [], None
    for (label, t), top in groups():
        same = last is not None and last[0] == label
        growth = top - last[2] if same else -1
        values.append((label, t, growth / ((t - last[1]) / 1000) if growth >= 0 else None))
        last = (label, t, top)
    first = groups()[0][0]  # of all rows: ClickHouse divides by nothing, or by all time since 1970
    actual = [[t, [p for p in pairs if (p[0], t) != first]] for t, pairs in (row.values() for row in result["data"])]
    expected = [[t, [p for p in pairs if (p[0], t) != first]] for t, pairs in by_time(values)]
    assert actual == expected


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT runningDifference(double1) FROM hits", "needs rows in order"),
        ("SELECT runningDifference(n) FROM (SELECT count() AS n FROM hits GROUP BY blob1)", "needs rows in order"),
        ("SELECT neighbor(n, n, 0) FROM (SELECT count() AS n FROM hits ORDER BY n)", "a literal whole number"),
        ("SELECT runningDifference(b) FROM (SELECT blob1 AS b FROM hits ORDER BY b)", "takes a number"),
        ("SELECT sum(n) OVER () FROM (SELECT double1 AS n FROM hits ORDER BY n)", "unsupported expression type"),
        ("SELECT lagInFrame(n) OVER (PARTITION BY n) FROM (SELECT double1 AS n FROM hits ORDER BY n)", "unsupported"),
    ],
)
def test_what_has_no_order(sql, message):
    """Rows have a previous row only if they have an order; other windows are not in the dialect."""
    with pytest.raises(QueryRefused, match=message):
        translate(sql, NOW)
