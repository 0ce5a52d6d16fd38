"""SQLite doing what the seed does: raw_events in a transaction, an hourly INSERT … SELECT, COUNT(DISTINCT).

WAL, one prepared statement and `executemany`, as SQLite's own pages advise for many small transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from bench.plain import Message, decode, settle

_SCHEMA = """
CREATE TABLE raw_events (
    id INTEGER PRIMARY KEY, message_id TEXT, type TEXT, event TEXT, user_id TEXT, anonymous_id TEXT,
    timestamp TEXT, properties TEXT, context TEXT);
CREATE TABLE hourly_events (hour TEXT, event TEXT, count INTEGER, PRIMARY KEY (hour, event));
CREATE TABLE daily_metrics (date TEXT PRIMARY KEY, dau INTEGER, events INTEGER);
"""
_INSERT = "INSERT INTO raw_events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_HOURLY = """
INSERT INTO hourly_events SELECT substr(timestamp, 1, 13), coalesce(event, ''), count(*) FROM raw_events WHERE id > ?
GROUP BY 1, 2 ON CONFLICT DO UPDATE SET count = count + excluded.count"""
_DAILY = """
INSERT INTO daily_metrics SELECT substr(timestamp, 1, 10), count(DISTINCT coalesce(user_id, anonymous_id)), count(*)
FROM raw_events WHERE id > ? GROUP BY 1
ON CONFLICT DO UPDATE SET dau = max(dau, excluded.dau), events = events + excluded.events"""
DAU = """
SELECT substr(timestamp, 1, 10), count(DISTINCT coalesce(user_id, anonymous_id)), count(*) FROM raw_events
WHERE timestamp >= ? GROUP BY 1"""


class RawEvents:
    """The seed's tables in one file. `synchronous` is FULL (a commit is on the disk) or OFF."""

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        fresh = not path.exists()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(f"PRAGMA synchronous = {synchronous}")
        if fresh:
            self.connection.executescript(_SCHEMA)

    def insert(self, messages: Sequence[Message]) -> None:
        """One transaction."""
        rows = [
            (
                m.message_id,
                m.type,
                m.event,
                m.user_id,
                m.anonymous_id,
                m.timestamp,
                bytes(m.properties),
                bytes(m.context),
            )
            for m in messages
        ]
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(_INSERT, rows)
        self.connection.execute("COMMIT")

    def take(self, body: bytes) -> None:
        """Decode a batch and store it."""
        self.insert(settle(decode(body)))

    def last(self) -> int:
        """The newest row's id."""
        return self.connection.execute("SELECT coalesce(max(id), 0) FROM raw_events").fetchone()[0]

    def roll_up(self, after: int) -> None:
        """Both rollups of the rows after an id, in one transaction. (Distinct users of a day that was seen before are
        not added up right: this is what the seed does.)
        """
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute(_HOURLY, [after])
        self.connection.execute(_DAILY, [after])
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
