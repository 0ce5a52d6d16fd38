"""chDB: ClickHouse in this process, a MergeTree table, filled with JSONEachRow as ClickHouse's pages advise for JSON.

Durable means `fsync_after_insert` and `fsync_part_directory`; both are off by default. ClickHouse advises inserts of
1,000 rows at least, and of 10,000 and more where that can be: at 1,000 it is at the edge of its advice.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Absent

_TABLE = """
CREATE TABLE lake.events (
    messageId String, type LowCardinality(String), event Nullable(String), name Nullable(String),
    userId Nullable(String), anonymousId Nullable(String), timestamp DateTime64(6, 'UTC'), properties String,
    traits String, context String
) ENGINE = MergeTree ORDER BY timestamp SETTINGS fsync_after_insert = {sync}, fsync_part_directory = {sync}"""
_INSERT = (
    "INSERT INTO lake.events SETTINGS date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1 "
    "FORMAT JSONEachRow "
)
FROM_PARQUET = """
CREATE TABLE lake.stored ENGINE = MergeTree ORDER BY timestamp SETTINGS allow_nullable_key = 1
AS SELECT * FROM file('{path}', Parquet)"""


class MergeTree:
    """One session: a process has one at a time."""

    def __init__(self, directory: Path, *, sync: bool) -> None:
        try:
            from chdb import session  # an optional extra, and 300 MB
        except ImportError as error:
            raise Absent("chdb is not installed: pip install 'lakebed[bench]'") from error
        self._directory = directory
        self._session = session.Session(str(directory))
        self._session.query("CREATE DATABASE IF NOT EXISTS lake")
        self._sync = int(sync)

    def create(self) -> None:
        """An empty table; what was there goes."""
        self._session.query("DROP TABLE IF EXISTS lake.events SYNC")
        self._session.query(_TABLE.format(sync=self._sync))

    def fill(self, bodies: Sequence[bytes]) -> None:
        """Store batches 20,000 events at a time, for questions that come later."""
        for first in range(0, len(bodies), 20):
            self.take(b"[" + b",".join(body[1:-1] for body in bodies[first : first + 20]) + b"]")

    def take(self, body: bytes) -> None:
        """Store a batch; ClickHouse itself decodes it."""
        self._session.query(_INSERT + body.decode())

    def ask(self, sql: str, form: str = "ArrowTable") -> Any:
        """The answer to a question."""
        return self._session.query(sql, form)

    def close(self, *, keep: bool = False) -> None:
        """End the session; its files go too."""
        self._session.close()
        if not keep:
            shutil.rmtree(self._directory, ignore_errors=True)
