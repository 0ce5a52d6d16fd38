"""DuckDB's own table, filled with Arrow batches, as its pages advise for bulk inserts from Python.

A commit of a file is durable: DuckDB syncs its write-ahead log. A high `checkpoint_threshold` keeps checkpoints out of
the measured time. Without durability it is in memory.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from bench.plain import arrow, decode, settle

_TABLE = """
CREATE TABLE events (
    seq BIGINT, message_id VARCHAR, type VARCHAR, event VARCHAR, user_id VARCHAR, anonymous_id VARCHAR,
    group_id VARCHAR, session_id VARCHAR, timestamp TIMESTAMPTZ, received_at TIMESTAMPTZ, source VARCHAR,
    properties VARCHAR, context VARCHAR)"""


class Table:
    """One table in a file, or in memory without a path."""

    def __init__(self, path: Path | None = None, threads: int = 0) -> None:
        self.connection = duckdb.connect(str(path or ":memory:"))
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET checkpoint_threshold = '64GB'")
        if threads:
            self.connection.execute(f"SET threads = {threads}")
        tables = self.connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'").fetchone()
        if not tables[0]:
            self.connection.execute(_TABLE)
        self._next = 0

    def insert(self, batch: pa.RecordBatch) -> None:
        """One transaction."""
        rows = pa.Table.from_batches([batch])  # noqa: F841 - DuckDB finds it by its name
        self.connection.execute("INSERT INTO events SELECT * FROM rows")

    def take(self, body: bytes) -> None:
        """Decode a batch and store it."""
        messages = settle(decode(body))
        self.insert(arrow(messages, self._next, times=True))
        self._next += len(messages)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
