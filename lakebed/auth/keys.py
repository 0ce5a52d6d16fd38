"""Keys: the permissions of network callers, each for one object. One SQLite file beside the objects, `<root>/keys.db`.

A secret is shown once, when it is created. Its SHA-256 is stored. A slow hash would protect nothing more, since it has
160 random bits.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from lakebed.clock import SECOND_US, Clock, SystemClock
from lakebed.errors import FormatTooNew, InvalidName, KeysUnavailable, UnknownKey
from lakebed.objects.names import directory_of

__all__ = ["FILE_NAME", "Key", "Keys", "Limits", "LiveKey", "Scope", "digest", "id_in"]

FILE_NAME = "keys.db"

Scope = Literal["write", "read", "admin"]
_PREFIXES: dict[str, str] = {"write": "lbw", "read": "lbr", "admin": "lba"}
_TOKEN = re.compile(r"lb[wra]_([0-9a-f]{12})_[0-9a-f]{40}")
_ID_BYTES, _SECRET_BYTES = 6, 20
_MAX_NOTE = 200
_BUSY_S = 10.0

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
_COLUMNS = "id, object, scope, note, created_us, rotated_us, revoked_us, limits"


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of one key. None means the server's default.

    Attributes:
        requests_per_s: average rate of requests of any kind.
        events_per_s: average rate of events to store.
        burst_s: seconds for which unused allowance is saved; that much may then arrive at once.
        max_body_bytes: maximum size of a body after decompression; it can only lower the server's limit.
    """

    requests_per_s: float | None = None
    events_per_s: float | None = None
    burst_s: float | None = None
    max_body_bytes: int | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without its secret.

    Attributes:
        id: 12 hex digits, not secret: the middle of the key's token.
        object: name of the one object that the key gives access to.
        scope: "write" stores events, "read" asks questions, "admin" may do everything.
        note: purpose, as free text.
        created_us, rotated_us, revoked_us: times in microseconds since 1970 UTC; None means never.
        limits: limits that differ from the server's defaults.
    """

    id: str
    object: str
    scope: Scope
    note: str
    created_us: int
    rotated_us: int | None = None
    revoked_us: int | None = None
    limits: Limits = Limits()


class LiveKey(msgspec.Struct, frozen=True):
    """A key that is not revoked, with the SHA-256 of each of its secrets and the time until which that is valid."""

    key: Key
    secrets: tuple[tuple[bytes, int | None], ...]


_KeyList = list[Key]  # within Keys, `list` is a method


class Keys:
    """The keys of all objects under `root`. Its methods block; each is one transaction, durable when it returns.

    It may be used from several processes and threads at once. A running server sees a change within a second.

    Args:
        root: directory of the objects.
        clock: source of the times that are stored.

    Raises:
        KeysUnavailable: from any method: the file cannot be read or written. Nothing was changed.
        FormatTooNew: from any method: a newer Lakebed wrote the file.
    """

    def __init__(self, root: str | Path, clock: Clock | None = None) -> None:
        self.root = Path(root)
        self.path = self.root / FILE_NAME
        self._clock: Clock = clock if clock is not None else SystemClock()

    def create(self, object: str, scope: Scope, note: str = "", limits: Limits | None = None) -> tuple[Key, str]:  # noqa: A002 - its name everywhere
        """Create a key; returns it with its token, which cannot be read again.

        The object need not exist yet. From the first key on, a server of this root refuses requests without a key.

        Raises:
            InvalidName: the object's name is not allowed, or the note has more than 200 characters.
            ValueError: there is no such scope, or a limit is not above 0.
        """
        directory_of(self.root, object)
        limits = _checked(scope, note, limits or Limits())
        key = Key(
            id=secrets.token_hex(_ID_BYTES),
            object=object,
            scope=scope,
            note=note,
            created_us=self._clock.now_us(),
            limits=limits,
        )
        token = _new_token(key)
        self._create_file()
        with self._transaction() as connection:
            row = (key.id, object, scope, note, key.created_us, msgspec.json.encode(limits).decode())
            connection.execute(
                "INSERT INTO keys (id, object, scope, note, created_us, limits) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            connection.execute("INSERT INTO secrets VALUES (?, ?, NULL)", (digest(token), key.id))
        return key, token

    def list(self, object: str | None = None) -> _KeyList:  # noqa: A002 - as in create
        """The keys of `object`, or all of them, oldest first; revoked ones too."""
        if self._is_empty():
            return []
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM keys WHERE ?1 IS NULL OR object = ?1 ORDER BY created_us, id", (object,)
            ).fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> Key:
        """Revoke a key, which is final. A revoked key stays as it is.

        Raises:
            UnknownKey: there is no such key.
        """
        with self._transaction() as connection:
            key = _stored(connection, key_id)
            connection.execute("DELETE FROM secrets WHERE key = ?", (key_id,))
            if key.revoked_us is not None:
                return key
            now = self._clock.now_us()
            connection.execute("UPDATE keys SET revoked_us = ? WHERE id = ?", (now, key_id))
        return msgspec.structs.replace(key, revoked_us=now)

    def rotate(self, key_id: str, grace_s: float = 0.0) -> tuple[Key, str]:
        """Give a key a new secret. Earlier secrets stay valid for `grace_s` seconds, if they do not end sooner.

        Raises:
            UnknownKey: there is no such key, or it is revoked.
            ValueError: `grace_s` is below 0.
        """
        if not 0 <= grace_s < float("inf"):
            raise ValueError(f"grace_s must be 0 or more seconds, not {grace_s}")
        with self._transaction() as connection:
            key, now = _unrevoked(connection, key_id), self._clock.now_us()
            until = now + round(grace_s * SECOND_US)
            connection.execute(
                "UPDATE secrets SET until_us = min(coalesce(until_us, ?1), ?1) WHERE key = ?2", (until, key_id)
            )
            connection.execute("DELETE FROM secrets WHERE key = ? AND until_us <= ?", (key_id, now))
            connection.execute("UPDATE keys SET rotated_us = ? WHERE id = ?", (now, key_id))
            token = _new_token(key)
            connection.execute("INSERT INTO secrets VALUES (?, ?, NULL)", (digest(token), key_id))
        return msgspec.structs.replace(key, rotated_us=now), token

    def limit(self, key_id: str, limits: Limits) -> Key:
        """Replace the limits of a key.

        Raises:
            UnknownKey: there is no such key, or it is revoked.
            ValueError: a limit is not above 0.
        """
        with self._transaction() as connection:
            key = _unrevoked(connection, key_id)
            _checked(key.scope, key.note, limits)
            connection.execute(
                "UPDATE keys SET limits = ? WHERE id = ?", (msgspec.json.encode(limits).decode(), key_id)
            )
        return msgspec.structs.replace(key, limits=limits)

    def live(self, *, wait_s: float = _BUSY_S) -> tuple[bool, dict[str, LiveKey]]:
        """Whether a key was ever created here, and the keys that are not revoked, by id."""
        if self._is_empty():
            return False, {}
        with self._transaction("DEFERRED", wait_s) as connection:
            ((has_any,),) = connection.execute("SELECT EXISTS (SELECT 1 FROM keys)").fetchall()
            rows = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE revoked_us IS NULL").fetchall()
            hashes: dict[str, list[tuple[bytes, int | None]]] = {}
            for key, sha256, until_us in connection.execute("SELECT key, sha256, until_us FROM secrets"):
                hashes.setdefault(key, []).append((sha256, until_us))
        return bool(has_any), {row[0]: LiveKey(_key(row), tuple(hashes.get(row[0], ()))) for row in rows}

    def _create_file(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # EXCL: opening and closing a file that SQLite has open in this process would drop its locks.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise self._unavailable(error) from error

    def _is_empty(self) -> bool:
        """Whether no key was ever created: there is no file, or an empty one that a crash left."""
        try:
            return self.path.stat().st_size == 0
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE", wait_s: float = _BUSY_S) -> Iterator[sqlite3.Connection]:
        try:
            if not self.path.exists():  # SQLite would create it
                raise UnknownKey(f"There are no keys in {self.root}", hint="Create one: lakebed keys create")
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


def digest(token: str) -> bytes:
    """The hash of a token, which is stored in its place."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def id_in(token: str) -> str | None:
    """The id of the key in a token. None if the text is not a token."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else match[1]


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


def _new_token(key: Key) -> str:
    return f"{_PREFIXES[key.scope]}_{key.id}_{secrets.token_hex(_SECRET_BYTES)}"


def _checked(scope: str, note: str, limits: Limits) -> Limits:
    if scope not in _PREFIXES:
        raise ValueError(f"{scope!r} is not a scope: use {', '.join(_PREFIXES)}")
    if len(note) > _MAX_NOTE:
        raise InvalidName(f"the note has {len(note)} characters", hint=f"Use at most {_MAX_NOTE}", limit=_MAX_NOTE)
    for name, value in msgspec.structs.asdict(limits).items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0, not {value}")
    return limits


def _key(row: tuple[Any, ...]) -> Key:
    *fields, limits = row
    names = _COLUMNS.split(", ")
    return Key(**dict(zip(names, fields, strict=False)), limits=msgspec.json.decode(limits, type=Limits))


def _stored(connection: sqlite3.Connection, key_id: str) -> Key:
    row = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()
    if row is None:
        raise UnknownKey("There is no key with this id", hint="`lakebed keys list` shows all keys", id=key_id[:40])
    return _key(row)


def _unrevoked(connection: sqlite3.Connection, key_id: str) -> Key:
    key = _stored(connection, key_id)
    if key.revoked_us is not None:
        raise UnknownKey(f"Key {key_id} is revoked", hint="Create a new one: lakebed keys create", id=key_id)
    return key
