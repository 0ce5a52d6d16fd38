"""The DuckDB of an object: one in-memory database, and a new cursor for each query.

DuckDB is imported for the first cursor: an earlier import would double the cost of `from lakebed import Analytics`.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

__all__ = ["SqlEngine"]


class SqlEngine:
    """An in-memory DuckDB, opened at the first use. Reads Arrow tables and Parquet files, and stores nothing.

    Args:
        threads: the number of DuckDB's threads; 0 means one less than the cores, at least one, so that one core is free
            for events: with DuckDB on both of two cores, a `track` beside a heavy query took 5 ms and more at p99; with
            one core free, 1.4 to 4.4 ms.
        memory_bytes: the memory limit; scalar functions may exceed it for a moment.
        spill: the directory for data that does not fit in memory, created when needed and emptied when the engine
            opens. If None, nothing spills.
        spill_bytes: the limit of bytes in `spill`.

    Thread-safe: each call has a cursor of its own.
    """

    def __init__(self, *, threads: int, memory_bytes: int, spill: Path | None = None, spill_bytes: int = 0) -> None:
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads or max(1, len(os.sched_getaffinity(0)) - 1),
            "memory_limit": f"{memory_bytes}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": True,
            # By default DuckDB spills to `.tmp` in the current directory of the process.
            "temp_directory": "" if spill is None else str(spill),
            "max_temp_directory_size": f"{spill_bytes}B",
        }
        self._spill = spill
        self._opening = threading.Lock()  # protects _connection while it is opened
        self._connection: duckdb.DuckDBPyConnection | None = None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new cursor, with temporary views and registered tables of its own. The caller closes it. Blocks."""
        with self._opening:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.cursor()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._spill is not None:  # a crash leaves files here
            shutil.rmtree(self._spill, ignore_errors=True)
        import duckdb  # costs as much to import as pyarrow; only objects that run queries need it

        connection = duckdb.connect(":memory:", config=self._config)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        # Caches footers of Parquet files. The footers count against the memory limit; a rewritten file is read again.
        # For a hundred files the cache saves half of the cost of a small query.
        connection.execute("SET GLOBAL parquet_metadata_cache = true")
        return connection

    def arrow(self, sql: str, parameters: list[Any] | None = None, **tables: pa.Table) -> pa.Table:
        """The result of `sql` over `tables`, each named by its keyword. Blocks.

        Raises:
            duckdb.Error: DuckDB's own error. Use `arrow` for SQL of Lakebed only; users' SQL goes through `query`.
        """
        cursor = self.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            return cursor.sql(sql, params=parameters).to_arrow_table()
        finally:
            cursor.close()

    def close(self) -> None:
        """Close the database and free its memory. No call may be running."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
