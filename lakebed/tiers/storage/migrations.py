"""The schema of `storage.db`, as a sequence of migrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from lakebed.errors import FormatTooNew

__all__ = ["MIGRATIONS", "migrate"]

Migration = tuple[str, ...]  # the statements from one format version to the next

# A released migration is never edited, because existing files have run it. A change is a new migration at the end.
MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE checkpoints (
            consumer TEXT PRIMARY KEY, next_seq INTEGER NOT NULL CHECK (next_seq >= 0)
        ) WITHOUT ROWID""",
        # Roaring bitmaps hold 32 bits, so the id is bounded here too, not only in Python.
        """CREATE TABLE identifiers (
            id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 4294967295), value TEXT NOT NULL UNIQUE
        )""",
        "CREATE TABLE rollups (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL)",
        # state is JSON and small; sketches are last, so that reading states does not read their overflow pages.
        """CREATE TABLE rollup_groups (
            rollup INTEGER NOT NULL REFERENCES rollups (id) ON DELETE CASCADE,
            bucket INTEGER NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, sketches BLOB,
            PRIMARY KEY (rollup, bucket, key)
        )""",
        """CREATE TABLE schedule_runs (
            job TEXT PRIMARY KEY, planned_us INTEGER NOT NULL, finished_us INTEGER NOT NULL,
            runs INTEGER NOT NULL, failures INTEGER NOT NULL, error TEXT
        ) WITHOUT ROWID""",
    ),
    (
        # Ids are never reused: a client that replays dead letter 7 means the dead letter that it has listed.
        """CREATE TABLE dead_letters (
            id INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT, key TEXT,
            message_id TEXT, replay_id TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, tried_us INTEGER,
            size INTEGER NOT NULL, shared BLOB NOT NULL, raw BLOB NOT NULL
        )""",
        "CREATE INDEX dead_letters_message ON dead_letters (message_id) WHERE message_id IS NOT NULL",
        """CREATE TABLE dead_letter_books (
            one INTEGER PRIMARY KEY CHECK (one = 1), waiting INTEGER NOT NULL, bytes INTEGER NOT NULL,
            kept INTEGER NOT NULL, dropped INTEGER NOT NULL, replayed INTEGER NOT NULL, purged INTEGER NOT NULL
        )""",
        "INSERT INTO dead_letter_books VALUES (1, 0, 0, 0, 0, 0, 0)",
    ),
    (
        # The identity graph. It is computed from log and archive, so an older file fills it on the first read.
        "CREATE TABLE identity_users (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL)",
        """CREATE TABLE identity_values (
            id INTEGER PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value)
        )""",
        # Nodes are ids of identifiers, or negated ids of values. An event has at most one edge of each kind.
        """CREATE TABLE identity_edges (
            seq INTEGER NOT NULL, kind TEXT NOT NULL, a INTEGER NOT NULL, b INTEGER NOT NULL,
            time_us INTEGER NOT NULL, message_id TEXT NOT NULL, confidence REAL NOT NULL, why TEXT,
            PRIMARY KEY (seq, kind)
        ) WITHOUT ROWID""",
        "CREATE INDEX identity_edges_a ON identity_edges (a, b, kind)",
        "CREATE INDEX identity_edges_b ON identity_edges (b)",
        # Has only the identities whose person is another identity.
        "CREATE TABLE identity_people (id INTEGER PRIMARY KEY, person INTEGER NOT NULL)",
    ),
)


async def migrate(connection: aiosqlite.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring a file to the newest format, with all missing migrations in one transaction.

    Raises:
        FormatTooNew: a newer Lakebed wrote the file; nothing was written.
        sqlite3.Error: SQLite failed; the file keeps its version.
    """
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    newest = len(migrations)
    if version > newest:
        raise FormatTooNew(
            f"{path} has format {version}, this Lakebed reads up to {newest}",
            hint="Install the Lakebed that wrote it, or a newer one",
            path=path,
            version=version,
        )
    if version == newest:
        return
    try:
        await connection.execute_fetchall("BEGIN IMMEDIATE")
        for statement in (statement for migration in migrations[version:] for statement in migration):
            await connection.execute_fetchall(statement)
        await connection.execute_fetchall(f"PRAGMA user_version = {newest}")
        await connection.execute_fetchall("COMMIT")
    except BaseException:
        await connection.rollback()
        raise
