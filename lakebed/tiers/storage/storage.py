"""L2: one SQLite file for checkpoints, rollup state, identifiers, schedule runs and small settings.

All of the object's SQLite SQL is in this package.
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
from lakebed.tiers.storage.transaction import GroupRow, StoredRollup, Transaction

__all__ = ["Storage", "damaged"]

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


class Storage:
    """One SQLite file with one connection, which is its only writer.

    Promised: all writes of one transaction are durable together (WAL, synchronous FULL), or absent. Cancelling a call
        does
    not stop its transaction halfway: it is committed or rolled back. Reads see committed state only; they wait for a
    running transaction.

    Not promised: that another process may write the same file. The object's lock prevents that, and with a single
    connection SQLite's WAL-reset bug (3.7.0 to 3.51.2, two connections or more) cannot happen.

    Args:
        path: the file; its directory must exist.

    Raises:
        StorageUnavailable: from any method, when SQLite failed. Nothing of that call was stored, except possibly a
            commit whose result was lost: the checkpoint shows it.
        ObjectClosed: from any method, before `open` and after `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: aiosqlite.Connection | None = None
        self._open = False
        self._must_check = False  # after a fatal error of the last connection
        self._lock = asyncio.Lock()  # one transaction or read at a time: statements of two would interleave
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Open or create the file and bring it to the newest format.

        Raises:
            FormatTooNew: it was written by a newer Lakebed, and was not changed.
            StorageUnavailable: it cannot be opened, or is not an SQLite file. No thread is left.
        """
        self._open = True
        try:
            await self._exclusive(_nothing)
        except BaseException:
            self._open = False
            raise

    async def close(self) -> None:
        """Wait for the running transaction, then close. Idempotent; also allowed after a failed `open`."""
        self._open = False
        await self._finish(self._close())

    async def _close(self) -> None:
        async with self._lock:
            await self._disconnect()

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in one transaction and commit it; any exception rolls all of it back and is raised.

        If the caller is cancelled, `work` still runs to its end. It must use its `Transaction`, and not this `Storage`.
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
        return dict(await self._fetch("SELECT consumer, next_seq FROM checkpoints"))

    async def get(self, key: str, default: Any = None, kind: Any = Any) -> Any:
        """The JSON value under `key`. Raises StorageUnavailable: it is not a `kind`, so the file is damaged."""
        rows = await self._fetch("SELECT value FROM meta WHERE key = ?", (key,))
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
        rows = await self._fetch("SELECT id, name, fingerprint FROM rollups")
        return {row[1]: StoredRollup(*row) for row in rows}

    async def states(self, rollup: int, start_us: int, end_us: int) -> list[tuple[int, str, str]]:
        """`(bucket, key, state)` of the groups with `start_us <= bucket < end_us`, by bucket and key."""
        return await self._fetch(
            """SELECT bucket, key, state FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ? ORDER BY bucket, key""",
            (rollup, start_us, end_us),
        )

    async def groups(self, rollup: int, start_us: int, end_us: int) -> list[GroupRow]:
        """The whole groups with `start_us <= bucket < end_us`, by bucket and key."""
        return await self._fetch(
            """SELECT bucket, key, state, sketches FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ? ORDER BY bucket, key""",
            (rollup, start_us, end_us),
        )

    async def sketches(self, rollup: int, start_us: int, end_us: int) -> list[tuple[int, bytes]]:
        """`(bucket, sketches)` of the groups with `start_us <= bucket < end_us` that have any, by bucket."""
        return await self._fetch(
            """SELECT bucket, sketches FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ? AND sketches IS NOT NULL ORDER BY bucket, key""",
            (rollup, start_us, end_us),
        )

    async def sketch_bytes(self, rollup: int, start_us: int, end_us: int) -> int:
        """The size of the result of `sketches`, without reading it."""
        rows = await self._fetch(
            """SELECT coalesce(sum(length(sketches)), 0) FROM rollup_groups
            WHERE rollup = ? AND bucket >= ? AND bucket < ?""",
            (rollup, start_us, end_us),
        )
        return int(rows[0][0])

    # Schedule runs

    async def record_run(self, job: str, planned_us: int, finished_us: int, error: str | None = None) -> None:
        """Record one run of a scheduled job, planned for `planned_us`. `error` is the reason if it failed."""
        await self.transact(lambda tx: tx.record_run(job, planned_us, finished_us, error))

    async def last_runs(self) -> dict[str, int]:
        """For each job that has run, the latest planned time of a run, in microseconds."""
        return dict(await self._fetch("SELECT job, planned_us FROM schedule_runs"))

    async def failing_jobs(self) -> dict[str, str]:
        """The jobs whose last run failed, with the error."""
        return dict(await self._fetch("SELECT job, error FROM schedule_runs WHERE error IS NOT NULL ORDER BY job"))

    # Health

    async def check(self) -> list[str]:
        """Problems of the file, as sentences. Reads the whole file."""
        problems = [f"{self.path}: {line}" for (line,) in await self._fetch("PRAGMA quick_check(20)") if line != "ok"]
        ((orphans,),) = await self._fetch("SELECT count(*) FROM pragma_foreign_key_check")
        if orphans:
            problems.append(f"{self.path}: {orphans} rows of state belong to no rollup")
        ((version,),) = await self._fetch("PRAGMA user_version")
        if version != len(MIGRATIONS):
            problems.append(f"{self.path}: format {version}, expected {len(MIGRATIONS)}")
        return problems

    # The one connection

    async def _fetch(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        async def read(connection: aiosqlite.Connection) -> list[Any]:
            return list(await connection.execute_fetchall(sql, parameters))

        return await self._exclusive(read)

    async def _exclusive(self, work: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        """Run `work` alone on the connection, and to its end even if the caller is cancelled."""

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
    """The error for values that SQLite reads without error, but that were never written: it has no checksums."""
    return StorageUnavailable(f"storage.db is damaged: {problem}", hint=_IF_DAMAGED, code="DAMAGED")


async def _closed(connection: aiosqlite.Connection) -> None:
    try:
        await connection.close()
    finally:
        _thread(connection).join()  # it has been stopped and has no work left, so this takes microseconds


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
