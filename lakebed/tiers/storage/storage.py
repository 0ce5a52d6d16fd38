"""L2: one SQLite file, and its transactions: checkpoints, rollup state and small settings.

All of the object's SQLite SQL is in this package. Identifiers, people, dead letters and runs of jobs have files of
their own, which work within one `Transaction`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
import msgspec

from lakebed.errors import ObjectClosed, StorageUnavailable
from lakebed.tiers.storage.migrations import MIGRATIONS, migrate

__all__ = ["Group", "GroupRow", "Storage", "StoredRollup", "Transaction", "damaged"]

T = TypeVar("T")

_BUSY_S = 5.0
# FULL: after a power loss a checkpoint must not be older than the deletions that relied on it.
_PREPARE = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;
    CREATE TEMP TABLE IF NOT EXISTS touched (bucket INTEGER NOT NULL, key TEXT NOT NULL);
"""
_IF_DAMAGED = (
    "If the file is damaged, close the object and remove storage.db, storage.db-wal and storage.db-shm: "
    "their contents are computed again from the log and the archive, except dead letters, which are lost"
)
# After these errors the connection cannot be trusted: the file is opened again and checked.
_FATAL = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN")

Group = tuple[int, str]  # bucket start in microseconds, key
GroupRow = tuple[int, str, str, bytes | None]  # bucket, key, state (JSON), sketches


class StoredRollup(msgspec.Struct, frozen=True):
    """A rollup with state in the file. Definitions that give different rows have different fingerprints."""

    id: int
    name: str
    fingerprint: str


class Transaction:
    """One transaction: all its writes are durable together, or absent.

    After any error, a transaction can only be rolled back; `Storage.transact` rolls it back.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._usable = True

    async def advance(self, consumer: str, expected: int, next_seq: int) -> None:
        """Move a checkpoint from `expected` to `next_seq`. A checkpoint that was never written is at 0.

        Raises:
            StorageUnavailable: the checkpoint is not at `expected`, so this range may have been counted already.
        """
        self._assert_open()
        moved = await self.fetch(
            """INSERT INTO checkpoints (consumer, next_seq)
            SELECT :consumer, :next WHERE :expected = 0 OR EXISTS (SELECT 1 FROM checkpoints WHERE consumer = :consumer)
            ON CONFLICT (consumer) DO UPDATE SET next_seq = excluded.next_seq WHERE next_seq = :expected
            RETURNING next_seq""",
            {"consumer": consumer, "expected": expected, "next": next_seq},
        )
        if not moved:
            self._usable = False
            raise StorageUnavailable(
                f"another writer changed the checkpoint of {consumer}: it is not at {expected}",
                hint="Nothing was written. Read the checkpoint and try again",
                consumer=consumer,
                expected=expected,
            )

    async def put(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        await self.fetch(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, msgspec.json.encode(value).decode()),
        )

    async def define(self, name: str, fingerprint: str) -> StoredRollup:
        """Define a rollup. A rollup with the same name loses its state; the caller has to reset its checkpoint."""
        await self.forget(name)
        ((number,),) = await self.fetch(
            "INSERT INTO rollups (name, fingerprint) VALUES (?, ?) RETURNING id", (name, fingerprint)
        )
        return StoredRollup(number, name, fingerprint)

    async def keep_state(self, name: str, fingerprint: str) -> None:
        """Set the fingerprint of a rollup without a change of its state, which then belongs to the new definition."""
        await self.fetch("UPDATE rollups SET fingerprint = ? WHERE name = ?", (fingerprint, name))

    async def forget(self, name: str) -> None:
        """Remove a rollup with its state."""
        await self.fetch("DELETE FROM rollups WHERE name = ?", (name,))

    async def drop_checkpoint(self, consumer: str) -> None:
        """Reset a checkpoint to 0."""
        await self.fetch("DELETE FROM checkpoints WHERE consumer = ?", (consumer,))

    async def groups(self, rollup: int, groups: Iterable[Group]) -> list[GroupRow]:
        """The rows of those groups among `groups` that exist."""
        await self.fetch("DELETE FROM touched")
        await self.many("INSERT INTO touched VALUES (?, ?)", groups)
        return await self.fetch(
            """SELECT g.bucket, g.key, g.state, g.sketches FROM touched t
            CROSS JOIN rollup_groups g ON g.rollup = ? AND g.bucket = t.bucket AND g.key = t.key""",
            (rollup,),
        )

    async def group_counts(self, rollup: int, buckets: Iterable[int], *, without: str) -> dict[int, int]:
        """The number of groups by bucket. The key `without` is not counted; buckets without groups are missing."""
        rows = await self.fetch(
            """SELECT bucket, count(*) FROM rollup_groups
            WHERE rollup = ? AND bucket IN (SELECT value FROM json_each(?)) AND key <> ? GROUP BY bucket""",
            (rollup, msgspec.json.encode(list(buckets)).decode(), without),
        )
        return dict(rows)

    async def put_groups(self, rollup: int, rows: Iterable[GroupRow]) -> None:
        """Write groups. Existing groups are replaced."""
        await self.many(
            f"""INSERT INTO rollup_groups (rollup, bucket, key, state, sketches) VALUES ({rollup:d}, ?, ?, ?, ?)
            ON CONFLICT (rollup, bucket, key) DO UPDATE SET state = excluded.state, sketches = excluded.sketches""",
            rows,
        )

    async def begin(self) -> None:
        """Start a write transaction. Called by `Storage`."""
        await self.fetch("BEGIN IMMEDIATE")

    async def commit(self) -> None:
        """Make the transaction durable. Called by `Storage`."""
        self._assert_open()
        await self.fetch("COMMIT")

    def _assert_open(self) -> None:
        # SQLITE_FULL and a few other errors roll back implicitly: unchecked, later writes would be committed alone.
        if not (self._usable and self._connection.in_transaction):
            raise StorageUnavailable("SQLite ended the transaction early", hint="Nothing of it was stored")

    async def fetch(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Run one statement and return its rows. For the files of this package, which have all SQL."""
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except BaseException:
            self._usable = False
            raise

    async def many(self, sql: str, rows: Iterable[Any]) -> None:
        """Run one statement for each of `rows`. For the files of this package."""
        try:
            await (await self._connection.executemany(sql, rows)).close()
        except BaseException:
            self._usable = False
            raise


class Storage:
    """One SQLite file with one connection, which is its only writer.

    Promised: all writes of one transaction are durable together (WAL, synchronous FULL), or absent. Cancelling a call
    does not stop its transaction halfway: the transaction is committed or rolled back. Reads see committed state only,
    and wait for a running transaction.

    Not promised: that another process may write the same file. The object's lock prevents this, and with a single
    connection SQLite's WAL-reset bug (3.7.0 to 3.51.2, two connections or more) cannot happen.

    Args:
        path: the file; its directory must exist.

    Raises:
        StorageUnavailable: from any method, if SQLite failed. Nothing of the failed call was stored, except possibly a
            commit whose result was lost; the checkpoint shows whether it was stored.
        ObjectClosed: from any method, before `open` and after `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: aiosqlite.Connection | None = None
        self._open = False
        self._must_check = False  # after a fatal error of the last connection
        self._lock = asyncio.Lock()  # one transaction or read at a time: else their statements would interleave
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Open or create the file and bring it to the newest format.

        Raises:
            FormatTooNew: a newer Lakebed wrote the file. The file was not changed.
            StorageUnavailable: the file cannot be opened, or is not an SQLite file. No thread is left.
        """
        self._open = True
        try:
            await self._exclusive(_nothing)
        except BaseException:
            self._open = False
            raise

    async def close(self) -> None:
        """Wait for the running transaction, then close the file. Idempotent; also allowed after a failed `open`."""
        self._open = False
        await self._finish(self._close())

    async def _close(self) -> None:
        async with self._lock:
            await self._disconnect()

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in one transaction, then commit. An exception rolls the whole transaction back, and is raised.

        If the caller is cancelled, `work` still runs to its end. `work` must use its `Transaction`, not this `Storage`.
        """

        async def transaction(connection: aiosqlite.Connection) -> T:
            tx = Transaction(connection)
            try:
                await tx.begin()
                result = await work(tx)
                await tx.commit()
            except BaseException:
                await connection.rollback()  # does nothing if SQLite has rolled back by itself
                raise
            return result

        return await self._exclusive(transaction)

    # Checkpoints and meta

    async def checkpoints(self) -> dict[str, int]:
        """The next seq of every consumer. A missing consumer is at 0."""
        return dict(await self.fetch("SELECT consumer, next_seq FROM checkpoints"))

    async def get(self, key: str, default: Any = None, kind: Any = Any) -> Any:
        """The JSON value under `key`. Raises StorageUnavailable if it is not a `kind`: then the file is damaged."""
        rows = await self.fetch("SELECT value FROM meta WHERE key = ?", (key,))
        try:
            return msgspec.json.decode(rows[0][0], type=kind) if rows else default
        except msgspec.DecodeError as error:
            raise damaged(f"{key} cannot be decoded: {error}") from error

    async def put(self, key: str, value: Any) -> None:
        """Store a JSON value under `key`, durably."""
        await self.transact(lambda tx: tx.put(key, value))

    # Rollups

    async def stored_rollups(self) -> dict[str, StoredRollup]:
        """The rollups with state in this file, by name."""
        rows = await self.fetch("SELECT id, name, fingerprint FROM rollups")
        return {row[1]: StoredRollup(*row) for row in rows}

    async def states(self, rollup: int, start_us: int, end_us: int) -> list[tuple[int, str, str]]:
        """`(bucket, key, state)` of the groups with `start_us <= bucket < end_us`, by bucket and key."""
        return await self._groups("bucket, key, state", rollup, start_us, end_us)

    async def groups(self, rollup: int, start_us: int, end_us: int) -> list[GroupRow]:
        """The whole groups with `start_us <= bucket < end_us`, by bucket and key."""
        return await self._groups("bucket, key, state, sketches", rollup, start_us, end_us)

    async def sketches(self, rollup: int, start_us: int, end_us: int) -> list[tuple[int, bytes]]:
        """`(bucket, sketches)` of the groups with `start_us <= bucket < end_us` that have sketches, by bucket."""
        return await self._groups("bucket, sketches", rollup, start_us, end_us, "AND sketches IS NOT NULL")

    async def _groups(self, columns: str, rollup: int, start_us: int, end_us: int, condition: str = "") -> list[Any]:
        return await self.fetch(
            f"""SELECT {columns} FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ? {condition} ORDER BY bucket, key""",
            (rollup, start_us, end_us),
        )

    async def sketch_bytes(self, rollup: int, start_us: int, end_us: int) -> int:
        """The bytes of the sketches that `sketches` would return. Does not read the sketches."""
        rows = await self.fetch(
            """SELECT coalesce(sum(length(sketches)), 0) FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ?""",
            (rollup, start_us, end_us),
        )
        return int(rows[0][0])

    # Health

    async def check(self) -> list[str]:
        """The problems of the file, one sentence each. Reads the whole file."""
        problems = [f"{self.path}: {line}" for (line,) in await self.fetch("PRAGMA quick_check(20)") if line != "ok"]
        ((orphans,),) = await self.fetch("SELECT count(*) FROM pragma_foreign_key_check")
        if orphans:
            problems.append(f"{self.path}: {orphans} rows of state belong to no rollup")
        ((version,),) = await self.fetch("PRAGMA user_version")
        if version != len(MIGRATIONS):
            problems.append(f"{self.path}: format {version}, expected {len(MIGRATIONS)}")
        return problems

    # The one connection

    async def fetch(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        """Run one statement that only reads, and return its rows. For the files of this package."""

        async def read(connection: aiosqlite.Connection) -> list[Any]:
            return list(await connection.execute_fetchall(sql, parameters))

        return await self._exclusive(read)

    async def _exclusive(self, work: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        """Run `work` alone on the connection. `work` runs to its end even if the caller is cancelled."""

        async def run() -> T:
            async with self._lock:
                try:
                    return await work(await self._connected())
                except sqlite3.Error as error:
                    raise await self._unavailable(error) from error

        return await self._finish(run())

    async def _finish(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _connected(self) -> aiosqlite.Connection:
        if not self._open:
            raise ObjectClosed(f"{self.path} is not open", path=self.path)
        if self._connection is None:
            self._connection = await self._connect()
        return self._connection

    async def _connect(self) -> aiosqlite.Connection:
        connection = aiosqlite.connect(self.path, isolation_level=None, timeout=_BUSY_S)
        # A storage that was not closed must not block the end of the interpreter: its commits are durable anyway.
        _thread(connection).daemon = True
        try:
            await connection
            await migrate(connection, self.path)
            await connection.executescript(_PREPARE)
            if self._must_check:
                await _quick_check(connection)
                self._must_check = False
        except BaseException:
            await _closed(connection)
            raise
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _closed(connection)

    async def _unavailable(self, error: sqlite3.Error) -> StorageUnavailable:
        code = getattr(error, "sqlite_errorname", None) or type(error).__name__
        if code.startswith(_FATAL):
            self._must_check = True
            await self._disconnect()
        hint = f"Free space or repair the disk and call again. {_IF_DAMAGED}"
        message = f"SQLite could not use {self.path}: {error} ({code})"
        return StorageUnavailable(message, hint=hint, path=self.path, code=code)


def damaged(problem: str) -> StorageUnavailable:
    """The error for values that were never written, but that SQLite (which has no checksums) reads without error."""
    return StorageUnavailable(f"storage.db is damaged: {problem}", hint=_IF_DAMAGED, code="DAMAGED")


async def _closed(connection: aiosqlite.Connection) -> None:
    try:
        await connection.close()
    finally:
        _thread(connection).join()  # the thread is stopped and has no work left, so this takes microseconds


def _thread(connection: aiosqlite.Connection) -> threading.Thread:
    thread: Any = getattr(connection, "_thread", connection)  # before 0.22 the connection is the thread
    return cast("threading.Thread", thread)


async def _nothing(_: aiosqlite.Connection) -> None:
    pass


async def _quick_check(connection: aiosqlite.Connection) -> None:
    (line,) = (await connection.execute_fetchall("PRAGMA quick_check(1)"))[0]  # type: ignore[index]
    if line != "ok":
        error = sqlite3.DatabaseError(line)
        error.sqlite_errorname = "SQLITE_CORRUPT"  # SQLite's name for damage that it finds itself
        raise error
