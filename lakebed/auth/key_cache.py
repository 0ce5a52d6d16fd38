"""KeyCache: the keys of a root in memory, for a server. A lookup takes microseconds."""

from __future__ import annotations

import hmac
import sqlite3
import weakref
from collections.abc import Collection

from lakebed.auth.keys import Key, Keys, LiveKey, digest, id_in
from lakebed.clock import Clock
from lakebed.errors import FormatTooNew, KeysUnavailable

__all__ = ["KeyCache"]

_CHECK_EVERY_S = 1.0
_RETRY_AFTER_S = 0.1
_FIRST_WAIT_S = 2.0
_NO_SECRET = b"\0" * 32  # compared if there is no key, so that the time does not show it

_State = tuple[int, int, int] | None  # device, inode, SQLite's data_version


class KeyCache:
    """The keys that are valid now. A change by another process is visible after at most 1 s.

    It holds the keys that are not revoked, about 1 KB each, and nothing about unknown keys. A call checks, at most once
    a second, whether the file has changed, which costs a few system calls; if so the keys are read again. A thread that
    watches the file was rejected: a mounted app is not told when it ends.

    Args:
        keys: the stored keys.
        clock: clock whose monotonic time decides when to check the file, and whose wall time ends replaced secrets.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._live: dict[str, LiveKey] = {}
        self._required = False
        self._state: _State = None
        self._check_at = float("-inf")
        self._closing: weakref.finalize[..., KeyCache] | None = None
        self._watch: sqlite3.Connection | None = None  # for data_version, which counts commits of other connections
        self._error: KeysUnavailable | FormatTooNew | None = None

    @property
    def required(self) -> bool:
        """Whether every request needs a key: true once the first key was created, also if all are revoked now.

        It stays true in this process if the file disappears.

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
        """The key with this id; None if it was not valid at the last check of the file."""
        live = self._live.get(key_id) if key_id is not None else None
        return None if live is None else live.key

    def find(self, token: str) -> Key | None:
        """The key with this token; None if no key has it, or it is no longer valid. The time does not show which.

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
        state = self._state_of_file()
        if state is None or state != self._state:
            has_any, self._live = self._keys.live(wait_s=_FIRST_WAIT_S if self._state is None else 0)
            self._required = self._required or has_any
            self._state = state

    def _state_of_file(self) -> _State:
        path = self._keys.path
        try:
            status = path.stat()
            # While the file is open, no other file gets its inode. Only SQLite opens it: closing another descriptor of
            # it would drop the locks that SQLite has in this process.
            if self._watch is None or self._state is None or self._state[:2] != (status.st_dev, status.st_ino):
                self._stop_watching()
                self._watch = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
                self._closing = weakref.finalize(self, self._watch.close)
            ((version,),) = self._watch.execute("PRAGMA data_version")
        except FileNotFoundError:
            self._stop_watching()
            return None
        except (OSError, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorname", None) or type(error).__name__
            message, hint = f"{path} cannot be read: {error} ({code})", "Repair its permissions or the disk"
            raise KeysUnavailable(message, hint=hint, path=path, code=code) from error
        return status.st_dev, status.st_ino, version

    def _stop_watching(self) -> None:
        if self._closing is not None:
            self._closing()
        self._closing = self._watch = None
