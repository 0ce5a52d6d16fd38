from __future__ import annotations

import builtins
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.clock import to_us
from lakebed.query.result import Result, Row

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def result(**columns: list) -> Result:
    return Result(pa.table(columns))


def test_row_by_attribute_key_and_position():
    """A value is reached by attribute, by key and by position, and iteration gives values in order."""
    row = result(date=[date(2026, 1, 1)], dau=[3])[0]
    assert (row.dau, row["dau"], row[1], row[-1]) == (3, 3, 3, 3)
    assert list(row) == [date(2026, 1, 1), 3]
    assert len(row) == 2
    assert row._asdict() == {"date": date(2026, 1, 1), "dau": 3}


def test_row_columns_named_like_methods():
    """A column may be called like a method of tuple or dict: the value wins."""
    row = result(count=[1], index=[2], keys=[3], items=[4])[0]
    assert (row.count, row.index, row.keys, row.items) == (1, 2, 3, 4)


def test_row_names_what_there_is():
    """An unknown column is named, with those that exist."""
    row = result(a=[1], b=[2])[0]
    with pytest.raises(AttributeError, match="no column 'c'; there are a, b"):
        _ = row.c
    with pytest.raises(KeyError, match="no column 'c'; there are a, b"):
        row["c"]
    with pytest.raises(IndexError):
        row[2]
    assert getattr(row, "c", None) is None


def test_row_equality_and_repr():
    """Rows are equal when names and values are; their repr shows both."""
    first, second = result(a=[1, 1], b=["x", "y"])
    assert first == result(a=[1], b=["x"])[0]
    assert hash(first) == hash(result(a=[1], b=["x"])[0])
    assert first != second
    assert first != result(a=[1], c=["x"])[0]
    assert first != (1, "x")
    assert repr(first) == "Row(a=1, b='x')"


def test_row_does_not_change_and_travels():
    """A row refuses assignment, and survives pickling (processes, caches)."""
    row = result(a=[1])[0]
    with pytest.raises(AttributeError, match="is read-only"):
        row.a = 2
    with pytest.raises(AttributeError, match="is read-only"):
        del row.a
    assert pickle.loads(pickle.dumps(row)) == row  # noqa: S301 - our own bytes


def test_result_does_not_change():
    """Nothing of a result can be assigned, and the list of rows is the caller's own."""
    answer = result(a=[1, 2])
    for name in ("tiers", "seq", "files", "rows", "anything"):
        with pytest.raises(AttributeError):
            setattr(answer, name, ())
    answer.rows.clear()
    assert len(answer.rows) == 2


def test_timestamps_are_aware_utc():
    """Timestamps come as aware UTC datetimes, whatever zone or unit DuckDB gave; dates stay dates."""
    us = to_us(NOON)
    table = pa.table(
        {
            "zoned": pa.array([us], pa.timestamp("us", tz="UTC")),
            "naive": pa.array([us], pa.timestamp("us")),
            "nanos": pa.array([us * 1000], pa.timestamp("ns")),
            "null": pa.array([None], pa.timestamp("us")),
            "day": pa.array([date(2026, 1, 15)]),
        }
    )
    row = Result(table)[0]
    assert (row.zoned, row.naive, row.nanos) == (NOON, NOON, NOON)
    assert row.zoned.utcoffset().total_seconds() == 0
    assert row.null is None
    assert type(row.day) is date


def test_huge_integers_are_integers():
    """A sum of integers is an int, within 64 bits and beyond; decimals stay decimals."""
    table = pa.table(
        {
            "small": pa.array([Decimal(6)], pa.decimal128(38, 0)),
            "large": pa.array([Decimal(10) ** 30], pa.decimal128(38, 0)),
            "money": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        }
    )
    answer = Result(table)
    assert answer[0]._asdict() == {"small": 6, "large": 10**30, "money": Decimal("1.50")}
    assert [type(value) for value in answer[0]] == [int, int, Decimal]
    assert answer.arrow()["small"].type == pa.int64()


def test_scalar_and_emptiness():
    """`scalar` is the first value; an empty result says that it has none, and is false."""
    assert result(n=[7, 8]).scalar() == 7
    empty = Result(pa.table({"n": pa.array([], pa.int64())}))
    assert not empty
    assert len(empty) == 0
    with pytest.raises(ValueError, match=r"no rows \(columns: n\)"):
        empty.scalar()


@given(st.lists(st.tuples(st.integers(-5, 5), st.text(max_size=3))), st.integers(-6, 6), st.integers(-6, 6))
def test_result_is_a_sequence_of_its_rows(values, at, to):
    """Length, iteration, indexing and slicing agree with the list of the values."""
    table = pa.table({"a": pa.array([a for a, _ in values], pa.int64()), "b": pa.array([b for _, b in values])})
    answer = Result(table.cast(pa.schema([("a", pa.int64()), ("b", pa.string())])))
    assert [tuple(row) for row in answer] == values
    assert [tuple(row) for row in answer[at:to]] == values[at:to]
    assert len(answer) == len(values)
    if -len(values) <= at < len(values):
        assert tuple(answer[at]) == values[at]


def test_frames():
    """The same numbers as pandas, polars and Arrow; Arrow is not copied."""
    answer = result(a=[1, 2], b=["x", None])
    assert answer.df().equals(pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=answer.df()["b"].dtype)}))
    assert answer.pl().equals(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
    assert answer.arrow() is answer.arrow()


@pytest.mark.parametrize(("method", "package"), [("df", "pandas"), ("pl", "polars")])
def test_missing_package_is_named(monkeypatch, method, package):
    """Without pandas or polars the error says what to install."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=f"pip install .*{package}"):
        getattr(result(a=[1]), method)()


def test_html_is_escaped_and_capped():
    """HTML shows at most 50 rows, says so, names tiers and time, and escapes names and values."""
    answer = Result(
        pa.table({"<b>": [f"<script>{n}</script>" for n in range(60)]}), tiers=("L1", "L3"), elapsed_ms=1.25
    )
    html = answer._repr_html_()
    assert "<script>" not in html
    assert "<th>&lt;b&gt;</th>" in html
    assert html.count("<tr>") == 51
    assert "L1 + L3 · 60 rows · 1.2 ms · the first 50 are shown" in html


def test_repr_shows_origin_and_first_rows():
    """The repr says tiers, rows, time and instant, and shows ten rows."""
    answer = Result(pa.table({"n": list(range(12))}), tiers=("L2",), elapsed_ms=3.0, as_of_us=to_us(NOON))
    lines = repr(answer).splitlines()
    assert lines[0] == "<Result L2 · 12 rows · 3.0 ms · as of 2026-01-15T12:00:00+00:00>"
    assert lines[1] == "  Row(n=0)"
    assert lines[-1] == "  … 2 more"
    assert answer.as_of == NOON


def test_two_columns_of_one_name():
    """Of two columns with one name the first is meant by name; both are there by position."""
    row = Result(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))[0]
    assert (row.a, row[1]) == (1, 2)
    assert isinstance(row, Row)
