"""Keys: the permissions of network callers, each for one object, in `<root>/keys.db`; and KeyCache, for a server.

A secret has 160 random bits and is shown once, at its creation. Its SHA-256 is stored: a slow hash would gain nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import msgspec

from lakebed.auth.key_file import BUSY_S, FileState, KeyFile, KeyFileWatch
from lakebed.clock import SECOND_US, Clock, SystemClock
from lakebed.errors import FormatTooNew, InvalidName, KeysUnavailable, UnknownKey
from lakebed.objects.manifest import directory_of

__all__ = ["FILE_NAME", "Key", "KeyCache", "Keys", "Limits", "LiveKey", "Scope", "digest", "id_in"]

FILE_NAME = "keys.db"

Scope = Literal["write", "read", "admin"]
_PREFIXES: dict[str, str] = {"write": "lbw", "read": "lbr", "admin": "lba"}
_TOKEN = re.compile(r"lb[wra]_([0-9a-f]{12})_[0-9a-f]{40}")
_ID_BYTES, _SECRET_BYTES = 6, 20
_MAX_NOTE = 200
_CHECK_EVERY_S = 1.0
_RETRY_AFTER_S = 0.1
_FIRST_WAIT_S = 2.0
_NO_SECRET = b"\0" * 32  # compared if there is no key, so that the time taken does not show that

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
    """A key that is not revoked, with the SHA-256 of each secret and the time until which the secret is valid."""

    key: Key
    secrets: tuple[tuple[bytes, int | None], ...]


_KeyList = list[Key]  # within Keys, `list` is a method


class Keys:
    """The keys of all objects under `root`. Its methods block; each is one transaction, durable when it returns.

    Keys may be used from several processes and threads at once. A running server sees a change within a second.

    Args:
        root: directory of the objects.
        clock: source of the times that are stored.

    Raises:
        KeysUnavailable: from any method: the file cannot be read or written. Nothing was changed.
        FormatTooNew: from any method: a newer Lakebed wrote the file.
    """

    def __init__(self, root: str | Path, clock: Clock | None = None) -> None:
        self.root = Path(root)
        self._file = KeyFile(self.root / FILE_NAME)
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
        self._file.create()
        with self._file.transaction() as connection:
            row = (key.id, object, scope, note, key.created_us, msgspec.json.encode(limits).decode())
            connection.execute(
                "INSERT INTO keys (id, object, scope, note, created_us, limits) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            connection.execute("INSERT INTO secrets VALUES (?, ?, NULL)", (digest(token), key.id))
        return key, token

    def list(self, object: str | None = None) -> _KeyList:  # noqa: A002 - as in create
        """The keys of `object`, or all of them, oldest first; revoked ones too."""
        if self._file.is_empty():
            return []
        with self._file.transaction("DEFERRED") as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM keys WHERE ?1 IS NULL OR object = ?1 ORDER BY created_us, id", (object,)
            ).fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> Key:
        """Revoke a key, which is final. A revoked key stays as it is. Raises UnknownKey: there is no such key."""
        with self._file.transaction() as connection:
            key = _stored(connection, key_id)
            connection.execute("DELETE FROM secrets WHERE key = ?", (key_id,))
            if key.revoked_us is not None:
                return key
            now = self._clock.now_us()
            connection.execute("UPDATE keys SET revoked_us = ? WHERE id = ?", (now, key_id))
        return msgspec.structs.replace(key, revoked_us=now)

    def rotate(self, key_id: str, grace_s: float = 0.0) -> tuple[Key, str]:
        """Give a key a new secret. Earlier secrets stay valid for `grace_s` seconds, unless they end sooner.

        Raises:
            UnknownKey: there is no such key, or it is revoked.
            ValueError: `grace_s` is below 0.
        """
        if not 0 <= grace_s < float("inf"):
            raise ValueError(f"grace_s must be 0 or more seconds, not {grace_s}")
        with self._file.transaction() as connection:
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
        with self._file.transaction() as connection:
            key = _unrevoked(connection, key_id)
            _checked(key.scope, key.note, limits)
            connection.execute(
                "UPDATE keys SET limits = ? WHERE id = ?", (msgspec.json.encode(limits).decode(), key_id)
            )
        return msgspec.structs.replace(key, limits=limits)

    def watch(self) -> KeyFileWatch:
        """A watch of the file, which shows whether it has changed."""
        return KeyFileWatch(self._file)

    def live(self, *, wait_s: float = BUSY_S) -> tuple[bool, dict[str, LiveKey]]:
        """Whether a key was ever created here, and the keys that are not revoked, by id."""
        if self._file.is_empty():
            return False, {}
        with self._file.transaction("DEFERRED", wait_s) as connection:
            ((has_any,),) = connection.execute("SELECT EXISTS (SELECT 1 FROM keys)").fetchall()
            rows = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE revoked_us IS NULL").fetchall()
            hashes: dict[str, list[tuple[bytes, int | None]]] = {}
            for key, sha256, until_us in connection.execute("SELECT key, sha256, until_us FROM secrets"):
                hashes.setdefault(key, []).append((sha256, until_us))
        return bool(has_any), {row[0]: LiveKey(_key(row), tuple(hashes.get(row[0], ()))) for row in rows}


class KeyCache:
    """The keys that are valid now. A change by another process is visible after at most 1 s.

    It keeps the keys that are not revoked, ~1 KB each, and nothing about unknown keys. A call checks, at most once
    a second, whether the file has changed, which costs a few system calls; if so the keys are read again. A thread
    that watches the file was rejected: a mounted app gets no event at which to end the thread.

    Args:
        keys: the stored keys.
        clock: clock whose monotonic time decides when to check the file, and whose wall time ends replaced secrets.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._live: dict[str, LiveKey] = {}
        self._required = False
        self._state: FileState | None = None
        self._check_at = float("-inf")
        self._watch = keys.watch()
        self._error: KeysUnavailable | FormatTooNew | None = None

    @property
    def required(self) -> bool:
        """Whether every request needs a key: true once the first key was created, also if all are revoked now.

        The answer stays true in this process even if the file disappears.

        Raises:
            KeysUnavailable, FormatTooNew: the file cannot be read. Requests have to be refused.
        """
        self._refresh()
        return self._required

    @property
    def ids(self) -> Collection[str]:
        """The ids of the valid keys, as of the last check of the file."""
        return self._live.keys()

    def get(self, key_id: str | None) -> Key | None:
        """The key with this id; None if no valid key had the id at the last check of the file."""
        live = self._live.get(key_id) if key_id is not None else None
        return None if live is None else live.key

    def find(self, token: str) -> Key | None:
        """The key with this token; None if no key has it, or it is no longer valid. The time taken does not show which.

        Raises:
            KeysUnavailable, FormatTooNew: as for `required`.
        """
        self._refresh()
        live = self._live.get(id_in(token) or "")
        received, now = digest(token), self._clock.now_us()
        secrets = live.secrets if live is not None else ((_NO_SECRET, None),)
        matches = [hmac.compare_digest(received, sha256) for sha256, until in secrets if until is None or now < until]
        return live.key if live is not None and any(matches) else None

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now >= self._check_at:
            try:
                self._read_if_changed()
                self._error, self._check_at = None, now + _CHECK_EVERY_S
            except (KeysUnavailable, FormatTooNew) as error:
                # While another process commits, the keys that were read before stay valid.
                busy = error.facts.get("code") == "SQLITE_BUSY" and self._state is not None
                self._error, self._check_at = None if busy else error, now + _RETRY_AFTER_S
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _read_if_changed(self) -> None:
        state = self._watch.state()
        if state is None or state != self._state:
            has_any, self._live = self._keys.live(wait_s=_FIRST_WAIT_S if self._state is None else 0)
            self._required = self._required or has_any
            self._state = state


def digest(token: str) -> bytes:
    """The hash of a token, which is stored in place of the token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def id_in(token: str) -> str | None:
    """The id of the key in a token. None if the text is not a token."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else match[1]


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
