"""KeyFile: the SQLite file of keys: creates and migrates the file, runs transactions, and shows whether it changed."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from lakebed.errors import FormatTooNew, KeysUnavailable, UnknownKey

__all__ = ["BUSY_S", "FileState", "KeyFile", "KeyFileWatch"]

BUSY_S = 10.0
"""Seconds that a transaction waits for other processes."""

FileState = tuple[int, int, int]
"""Device, inode, and SQLite's data_version."""

# A released step is never edited, since files have run it. A change is a new step at the end.
_MIGRATIONS = (
    (
        # A revoked key keeps its row: keys are required as soon as there is any row.
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, object TEXT NOT NULL, scope TEXT NOT NULL CHECK (scope IN ('write', 'read', 'admin')),
            note TEXT NOT NULL, created_us INTEGER NOT NULL, rotated_us INTEGER, revoked_us INTEGER,
            limits TEXT NOT NULL
        ) WITHOUT ROWID""",
        # until_us is NULL for the newest secret of a key. A secret that a rotation replaced is valid until then.
        """CREATE TABLE secrets (
            sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
            key TEXT NOT NULL REFERENCES keys (id) ON DELETE CASCADE, until_us INTEGER
        ) WITHOUT ROWID""",
        "CREATE INDEX secrets_of_key ON secrets (key)",
    ),
)


class KeyFile:
    """The file at `path`. The file need not exist before `create` is called.

    Raises:
        KeysUnavailable: from any method: the file cannot be read or written. Nothing was changed.
        FormatTooNew: from `transaction`: a newer Lakebed wrote the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Create the file, empty, if it does not exist."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # EXCL: opening and closing a file that SQLite has open in this process would drop its locks.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise self._unavailable(error) from error

    def is_empty(self) -> bool:
        """Whether no key was ever created: there is no file, or an empty one that a crash left."""
        try:
            return self.path.stat().st_size == 0
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE", wait_s: float = BUSY_S) -> Iterator[sqlite3.Connection]:
        """A transaction, durable when the block ends. Waits up to `wait_s` seconds for transactions of other processes.

        Raises:
            UnknownKey: there is no file.
        """
        try:
            if not self.path.exists():  # SQLite would create the file
                raise UnknownKey(f"There are no keys in {self.path.parent}", hint="Create one: lakebed keys create")
            # No WAL: it needs two more files, and SQLite before 3.51.3 may lose writes of two connections in it.
            with closing(sqlite3.connect(self.path, timeout=wait_s, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA foreign_keys = ON")
                self._migrate(connection)
                with _committed(connection, kind):
                    yield connection
        except (sqlite3.Error, msgspec.DecodeError, OSError) as error:
            raise self._unavailable(error) from error

    def _migrate(self, connection: sqlite3.Connection) -> None:
        newest = len(_MIGRATIONS)
        if _version(connection) == newest:
            return
        with _committed(connection):
            version = _version(connection)
            if version > newest:
                raise FormatTooNew(
                    f"{self.path} has format {version}, this Lakebed reads up to {newest}",
                    hint="Install the Lakebed that wrote it, or a newer one",
                    path=self.path,
                    version=version,
                )
            for statement in (statement for step in _MIGRATIONS[version:] for statement in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {newest}")

    def _unavailable(self, error: Exception) -> KeysUnavailable:
        code = getattr(error, "sqlite_errorname", None) or type(error).__name__
        return KeysUnavailable(
            f"{self.path} cannot be used: {error} ({code})",
            hint="Every request is refused until it can. Repair the disk or the permissions, or restore the file",
            path=self.path,
            code=code,
        )


class KeyFileWatch:
    """Shows whether another connection has changed a file. The watch keeps a connection open while the file exists."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._identity: tuple[int, int] | None = None  # device and inode of the file that was read last
        self._connection: sqlite3.Connection | None = None  # for data_version: counts commits of other connections
        self._closing: weakref.finalize[..., KeyFileWatch] | None = None

    def state(self) -> FileState | None:
        """The state of the file, which differs after each commit of another connection; None if there is no file.

        Raises:
            KeysUnavailable: the file cannot be read.
        """
        path = self._file.path
        try:
            status = path.stat()
            # While the file is open, no other file gets its inode. Only SQLite opens it: closing another descriptor of
            # it would drop the locks that SQLite has in this process.
            if self._connection is None or self._identity != (status.st_dev, status.st_ino):
                self._close()
                self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
                self._closing = weakref.finalize(self, self._connection.close)
            ((version,),) = self._connection.execute("PRAGMA data_version")
            self._identity = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            self._close()
            return None
        except (OSError, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorname", None) or type(error).__name__
            message, hint = f"{path} cannot be read: {error} ({code})", "Repair its permissions or the disk"
            raise KeysUnavailable(message, hint=hint, path=path, code=code) from error
        return status.st_dev, status.st_ino, version

    def _close(self) -> None:
        if self._closing is not None:
            self._closing()
        self._closing = self._connection = None


@contextmanager
def _committed(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
