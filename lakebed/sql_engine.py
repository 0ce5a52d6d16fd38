"""The sole importer of DuckDB: one in-memory database an object, a fresh cursor for each question.

DuckDB is imported when the first engine is made: it would double what `from lakebed import Analytics` costs.
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
    """An in-memory DuckDB that reads Arrow tables and Parquet files, and keeps nothing. It is opened by the first use.

    Args:
        threads: DuckDB's threads; 0 means one less than the cores, at least one, so that events find a core: with
            DuckDB on both of two cores, a `track` beside a heavy query took 5 ms and more at p99, and takes 1.4 to 4.4.
        memory_bytes: its memory limit; scalar functions may pass it for a moment.
        spill: a directory for what does not fit in memory, made when needed and emptied when the engine opens. Without
            it nothing spills.
        spill_bytes: how much may lie there.

    May be used from several threads at once: each call has a cursor of its own.
    """

    def __init__(self, *, threads: int, memory_bytes: int, spill: Path | None = None, spill_bytes: int = 0) -> None:
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads or max(1, len(os.sched_getaffinity(0)) - 1),
            "memory_limit": f"{memory_bytes}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": True,
            # By default DuckDB spills to `.tmp` in the directory where the app happened to start.
            "temp_directory": "" if spill is None else str(spill),
            "max_temp_directory_size": f"{spill_bytes}B",
        }
        self._spill = spill
        self._opening = threading.Lock()  # protects _connection while it is made
        self._connection: duckdb.DuckDBPyConnection | None = None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A fresh cursor; the caller closes it. Temporary views and registered tables are its own. Blocks."""
        with self._opening:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.cursor()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._spill is not None:  # a crash leaves files here
            shutil.rmtree(self._spill, ignore_errors=True)
        import duckdb  # costs as much as pyarrow; only objects that answer questions pay it

        connection = duckdb.connect(":memory:", config=self._config)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        # Footers of the files of an earlier question. They count against the memory limit, and a file that was written
        # anew is read anew. Of a hundred files it is half of what a small question costs.
        connection.execute("SET GLOBAL parquet_metadata_cache = true")
        return connection

    def arrow(self, sql: str, parameters: list[Any] | None = None, **tables: pa.Table) -> pa.Table:
        """The result of `sql` over `tables`, which it sees by their keyword. Blocks.

        Raises:
            duckdb.Error: as DuckDB raises it. This is for our own SQL; users' SQL goes through `query`.
        """
        cursor = self.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            return cursor.sql(sql, params=parameters).to_arrow_table()
        finally:
            cursor.close()

    def close(self) -> None:
        """Free its memory. No call may be under way."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
