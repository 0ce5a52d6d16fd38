"""Views of the archive, and the files that garbage collection leaves alone because of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec

from lakebed.tiers.archive.models import DataFile

__all__ = ["ArchiveView", "Pins", "State"]


class State(msgspec.Struct, frozen=True):
    """One state of the archive: a snapshot, its watermark and its live files."""

    snapshot_id: int | None = None
    watermark: int = 0
    files: tuple[DataFile, ...] = ()


class Pins:
    """Which states are in use, and the newest state that is known without asking the catalog. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects all below
        self._held: dict[int, State] = {}
        self._numbers = itertools.count()
        self._newest: State | None = None

    @property
    def newest(self) -> State | None:
        """The newest state, or None when the catalog must be asked."""
        with self._lock:
            return self._newest

    @newest.setter
    def newest(self, state: State | None) -> None:
        with self._lock:
            self._newest = state

    def hold(self, state: State) -> tuple[int, State]:
        """Pin `state`: it, and a number to give back to `release`."""
        with self._lock:
            return self._hold(state)

    def hold_newest(self) -> tuple[int, State] | None:
        """Find out the newest state and pin it, in one step; None where it is not known."""
        with self._lock:
            return None if self._newest is None else self._hold(self._newest)

    def _hold(self, state: State) -> tuple[int, State]:
        number = next(self._numbers)
        self._held[number] = state
        return number, state

    def release(self, number: int) -> None:
        """Let go of what `hold` or `hold_newest` gave."""
        with self._lock:
            del self._held[number]

    def paths(self) -> set[str]:
        """Paths of all pinned files."""
        with self._lock:
            return {file.path for state in self._held.values() for file in state.files}


class ArchiveView:
    """One state of the archive, held still. Use it as an async context manager.

    While it is open this process deletes none of its files. A collector in another process knows nothing of it: there
    only `garbage_grace_s` protects.

    Attributes:
        snapshot_id: None where nothing was archived yet.
        watermark: every event with a lower `seq` is in `files`, once, unless it was erased.
        files: by first timestamp.
    """

    snapshot_id: int | None
    watermark: int
    files: tuple[DataFile, ...]

    def __init__(self, pins: Pins, acquire: Callable[[], Awaitable[tuple[int, State]]]) -> None:
        self._pins = pins
        self._acquire = acquire
        self._number: int | None = None

    async def __aenter__(self) -> Self:
        """Raises what `Archive.pin` says."""
        self._number, state = await self._acquire()
        self.snapshot_id, self.watermark, self.files = state.snapshot_id, state.watermark, state.files
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is not None:
            self._pins.release(self._number)
            self._number = None
