"""Views of the archive, and the states that they pin: garbage collection keeps the files of those."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec

from lakebed.tiers.archive.models import DataFile

__all__ = ["ArchiveState", "ArchiveView", "PinnedStates"]


class ArchiveState(msgspec.Struct, frozen=True):
    """One state of the archive: a snapshot, its watermark and its live files."""

    snapshot_id: int | None = None
    watermark: int = 0
    files: tuple[DataFile, ...] = ()


class PinnedStates:
    """The states that views use, and the newest state if it is known without the catalog. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects all below
        self._held: dict[int, ArchiveState] = {}
        self._numbers = itertools.count()
        self._newest: ArchiveState | None = None

    @property
    def newest(self) -> ArchiveState | None:
        """The newest state, or None when the catalog must be asked."""
        with self._lock:
            return self._newest

    @newest.setter
    def newest(self, state: ArchiveState | None) -> None:
        with self._lock:
            self._newest = state

    def hold(self, state: ArchiveState) -> tuple[int, ArchiveState]:
        """Pin `state`; returns a number for `release`, and the state."""
        with self._lock:
            return self._hold(state)

    def hold_newest(self) -> tuple[int, ArchiveState] | None:
        """Pin the newest state, in one step; None when it is not known."""
        with self._lock:
            return None if self._newest is None else self._hold(self._newest)

    def _hold(self, state: ArchiveState) -> tuple[int, ArchiveState]:
        number = next(self._numbers)
        self._held[number] = state
        return number, state

    def release(self, number: int) -> None:
        """Unpin the state of a number from `hold` or `hold_newest`."""
        with self._lock:
            del self._held[number]

    def paths(self) -> set[str]:
        """Paths of all pinned files."""
        with self._lock:
            return {file.path for state in self._held.values() for file in state.files}


class ArchiveView:
    """One state of the archive, pinned. Use it as an async context manager.

    While it is open this process deletes none of its files. A collector in another process does not see it: against
    that one only `garbage_grace_s` protects.

    Attributes:
        snapshot_id: None when nothing was archived yet.
        watermark: every event with a lower `seq` is in `files`, once, unless it was erased.
        files: by first timestamp.
    """

    snapshot_id: int | None
    watermark: int
    files: tuple[DataFile, ...]

    def __init__(self, pins: PinnedStates, acquire: Callable[[], Awaitable[tuple[int, ArchiveState]]]) -> None:
        self._pins = pins
        self._acquire = acquire
        self._number: int | None = None

    async def __aenter__(self) -> Self:
        """Raises the errors of `Archive.pin`."""
        self._number, state = await self._acquire()
        self.snapshot_id, self.watermark, self.files = state.snapshot_id, state.watermark, state.files
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number is not None:
            self._pins.release(self._number)
            self._number = None
