"""The layout of events in Parquet."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebed.events.event import SCHEMA
from lakebed.events.parquet import layout, with_filters
from lakebed.sql_engine import SqlEngine

ROWS = 40_000  # more than the 20,000 that end a page by default


def _events() -> pa.Table:
    times = pa.array([1_767_225_600_000_000 + at * 1000 for at in range(ROWS)]).cast(pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = dict.fromkeys(SCHEMA.names, pa.nulls(ROWS, pa.string()))
    columns |= {
        "seq": pa.array(range(ROWS)),
        "message_id": pa.array([str(uuid.UUID(int=at * 0x9E3779B97F4A7C15F39CC060)) for at in range(ROWS)]),
        "type": pa.array(["track"] * ROWS),
        "event": pa.array([f"e{at % 7}" for at in range(ROWS)]),
        "user_id": pa.array([None if at % 3 == 0 else f"user {at % 500}" for at in range(ROWS)]),
        "timestamp": times,
        "received_at": times,
        "properties": pa.array([f'{{"n":{at}}}' for at in range(ROWS)]),
        "context": pa.array(["{}"] * ROWS),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    rows = _events()
    options = with_filters(layout(rows.column_names), rows)
    pq.write_table(rows, tmp_path / "events.parquet", **options)
    return tmp_path / "events.parquet"


def _ask(sql: str) -> pa.Table:
    engine = SqlEngine(threads=1, memory_bytes=1 << 29)
    try:
        return engine.arrow(sql)
    finally:
        engine.close()


def test_two_readers_read_every_row_back(written: Path) -> None:
    """PyArrow and DuckDB read from a file exactly the rows that were written to it."""
    rows = _events()
    assert pq.read_table(written).equals(rows)
    assert _ask(f"SELECT * FROM read_parquet('{written}') ORDER BY seq").cast(SCHEMA).equals(rows)


@pytest.mark.integration
def test_bloom_filters_skip_row_groups_without_the_user(written: Path) -> None:
    """The Bloom filter of a row group excludes a user without rows in it, and finds a user with rows."""
    if "bloom_filter_options" not in with_filters({}, _events()):
        pytest.skip("this PyArrow writes no Bloom filters")
    probe = f"SELECT bool_and(bloom_filter_excludes) AS out FROM parquet_bloom_probe('{written}', 'user_id', '%s')"
    present = {f"user {at}" for at in range(0, 500, 25)}
    assert {user for user in present if _ask(probe % user)["out"][0].as_py()} == set()
    excluded = sum(_ask(probe % f"stranger {at}")["out"][0].as_py() for at in range(20))
    assert excluded >= 18  # one in a hundred may not be


def test_a_message_id_takes_less_than_19_bytes(written: Path) -> None:
    """36 characters of a UUID, 15.25 bytes of which are random, take less than 19 bytes."""
    group = pq.read_metadata(written).row_group(0)
    column = group.column(SCHEMA.get_field_index("message_id"))
    assert column.total_compressed_size / ROWS < 19


def test_columns_without_values_have_no_bloom_filter() -> None:
    """A batch without any user_id has no filter, and is written."""
    rows = _events().set_column(4, SCHEMA.field("user_id"), pa.nulls(ROWS, pa.string()))
    assert "bloom_filter_options" not in with_filters({}, rows)
