"""The only file system of DuckDB in a worker process: it reads descriptors that the server opened and passed."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from lakebed.query.sandbox.messages import PASSED_PREFIX

__all__ = ["PassedFiles"]

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # passed files do not change


class PassedFiles(AbstractFileSystem):  # type: ignore[misc, unused-ignore]  # fsspec has no types everywhere
    """A read-only file system. Its files are the descriptors in `files`; a file's name is its index there."""

    protocol = "passed"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.files: list[int] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def _descriptor(self, path: str) -> int:
        number = path.removeprefix(PASSED_PREFIX)
        if not number.isdecimal() or int(number) >= len(self.files):
            raise FileNotFoundError(path)
        return self.files[int(number)]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open a reader of the file at `path`."""
        if mode != "rb":
            raise PermissionError("files are read-only here")
        return _Reader(self._descriptor(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """The name, size and type of the file at `path`."""
        return {"name": path, "size": os.fstat(self._descriptor(path)).st_size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether `path` names a passed file."""
        try:
            return self._descriptor(path) >= 0
        except FileNotFoundError:
            return False

    def isfile(self, path: str) -> bool:
        """Whether `path` names a passed file."""
        return self.exists(path)

    def glob(self, path: str, **_: Any) -> list[str]:
        """A list of `path` itself if it exists, else an empty list. Wildcards are not supported."""
        return [path] if self.exists(path) else []

    def modified(self, path: str) -> datetime:
        """A constant time, because passed files do not change."""
        self._descriptor(path)
        return _LONG_AGO


class _Reader(io.RawIOBase):
    """Reads a descriptor at a position of its own, so that several readers can share the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        count = self._size() - self._position if size < 0 else size
        pieces = []
        while count > 0 and (piece := os.pread(self._descriptor, count, self._position)):
            pieces.append(piece)
            count -= len(piece)
            self._position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size
