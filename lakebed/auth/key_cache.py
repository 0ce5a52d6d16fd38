"""KeyRing: the keys of a root in memory, as a server asks for them. A look into it costs microseconds."""

from __future__ import annotations

import hmac
import sqlite3
import weakref
from collections.abc import Collection

from lakebed.auth.keys import Key, Keys, LiveKey, digest, id_in
from lakebed.clock import Clock
from lakebed.errors import FormatTooNew, KeysUnavailable

__all__ = ["KeyCache"]

_LOOK_S = 1.0
_LOOK_AGAIN_S = 0.1
_FIRST_WAIT_S = 2.0
_NOBODY = b"\0" * 32

_State = tuple[int, int, int] | None  # device, inode, SQLite's data_version


class KeyCache:
    """Which keys count now. It follows other processes: who asks it sees every change that was made 1 s before.

    It holds the keys that are not revoked, about 1 KB each, and nothing of those that it does not know. When it is
    asked, and at most once a second, it looks whether the file has changed, which costs a few system calls; if so it
    reads the keys again. A thread that watches the file was rejected: a mounted app is not told when it ends.

    Args:
        keys: where they are kept.
        clock: its monotonic time says when to look, its wall time ends what a rotation replaced.
    """

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._live: dict[str, LiveKey] = {}
        self._required = False
        self._state: _State = None
        self._look_at = float("-inf")
        self._closing: weakref.finalize[..., KeyCache] | None = None
        self._watch: sqlite3.Connection | None = None  # for data_version, which counts what others commit
        self._error: KeysUnavailable | FormatTooNew | None = None

    @property
    def required(self) -> bool:
        """Whether nobody may do anything without a key: since the first was ever made, also when all are revoked.

        A file that vanishes does not change that for as long as this process runs.

        Raises:
            KeysUnavailable, FormatTooNew: the file cannot be read. Nobody knows, so nobody is let in.
        """
        self._look()
        return self._required

    @property
    def ids(self) -> Collection[str]:
        """The ids of the keys that count, as of the last look."""
        return self._live.keys()

    def get(self, key_id: str | None) -> Key | None:
        """The key with this id, if it counted at the last look."""
        live = self._live.get(key_id) if key_id is not None else None
        return None if live is None else live.key

    def find(self, token: str) -> Key | None:
        """The key whose token this is; None if there is none, or none any more. Its time does not tell which.

        Raises:
            KeysUnavailable, FormatTooNew: as `required`.
        """
        self._look()
        live = self._live.get(id_in(token) or "")
        shown, now = digest(token), self._clock.now_us()
        known = live.secrets if live is not None else ((_NOBODY, None),)
        matches = [hmac.compare_digest(shown, sha256) for sha256, until in known if until is None or now < until]
        return live.key if live is not None and any(matches) else None

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now >= self._look_at:
            try:
                self._read_if_changed()
                self._error, self._look_at = None, now + _LOOK_S
            except (KeysUnavailable, FormatTooNew) as error:
                # While another process commits, what was read before is what holds.
                busy = error.facts.get("code") == "SQLITE_BUSY" and self._state is not None
                self._error, self._look_at = None if busy else error, now + _LOOK_AGAIN_S
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _read_if_changed(self) -> None:
        state = self._state_of_file()
        if state is None or state != self._state:
            ever, self._live = self._keys.live(wait_s=_FIRST_WAIT_S if self._state is None else 0)
            self._required = self._required or ever
            self._state = state

    def _state_of_file(self) -> _State:
        path = self._keys.path
        try:
            found = path.stat()
            # While it is open its inode is given to no other file. Not opened but by SQLite: closing a descriptor of
            # one's own would drop the locks that SQLite has in this process.
            if self._watch is None or self._state is None or self._state[:2] != (found.st_dev, found.st_ino):
                self._look_away()
                self._watch = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
                self._closing = weakref.finalize(self, self._watch.close)
            ((version,),) = self._watch.execute("PRAGMA data_version")
        except FileNotFoundError:
            self._look_away()
            return None
        except (OSError, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorname", None) or type(error).__name__
            message, hint = f"{path} cannot be read: {error} ({code})", "Mend its rights or the disk"
            raise KeysUnavailable(message, hint=hint, path=path, code=code) from error
        return found.st_dev, found.st_ino, version

    def _look_away(self) -> None:
        if self._closing is not None:
            self._closing()
        self._closing = self._watch = None
