"""One question under way: its cursor, and how the loop stops it."""

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
    """One question's cursor, and how the loop stops it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both below: interrupting a closed cursor is an error
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._stopped = False

    @contextmanager
    def cursor(self, engine: SqlEngine) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that `stop` reaches."""
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
        """Interrupt what runs and refuse what comes. May be called again and again."""
        with self._lock:
            self._stopped = True
            if self._cursor is not None:
                self._cursor.interrupt()

    def check(self) -> None:
        """Raise QueryTimeout once stopped."""
        if self._stopped:
            raise QueryTimeout("the query was stopped", hint="Ask again")
