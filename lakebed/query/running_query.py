"""RunningQuery: the cursor of a query in a thread, which the event loop can stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakebed.errors import QueryTimeout
from lakebed.sql_engine import SqlEngine

if TYPE_CHECKING:
    import duckdb

__all__ = ["RunningQuery"]


class RunningQuery:
    """The cursor of a query that runs in a thread. The event loop can stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both below: interrupting a closed cursor is an error
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._stopped = False

    @contextmanager
    def cursor(self, engine: SqlEngine) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a cursor that `stop` can interrupt."""
        cursor = engine.cursor()
        try:
            with self._lock:
                self._cursor = cursor
            self.check()
            yield cursor
        finally:
            with self._lock:
                self._cursor = None
            cursor.close()

    def stop(self) -> None:
        """Interrupt the running statement and refuse further ones. May be called repeatedly."""
        with self._lock:
            self._stopped = True
            if self._cursor is not None:
                self._cursor.interrupt()

    def check(self) -> None:
        """Raise QueryTimeout if `stop` was called."""
        if self._stopped:
            raise QueryTimeout("the query was stopped: its object was closed", hint="Open the object again")
