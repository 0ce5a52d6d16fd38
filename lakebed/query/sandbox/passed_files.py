"""The files that a question was given, as the only file system that DuckDB has: descriptors, opened by the server."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

__all__ = ["PREFIX", "PassedFiles"]

PREFIX = "given://"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # files that are given do not change


class PassedFiles(AbstractFileSystem):  # type: ignore[misc, unused-ignore]  # fsspec has no types everywhere
    """Reads the descriptors in `files`, by their number. Nothing can be written."""

    protocol = "given"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.files: list[int] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def _descriptor(self, path: str) -> int:
        number = path.removeprefix(PREFIX)
        if not number.isdecimal() or int(number) >= len(self.files):
            raise FileNotFoundError(path)
        return self.files[int(number)]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """A reader of a file."""
        if mode != "rb":
            raise PermissionError("files are only read here")
        return _Reader(self._descriptor(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Its size."""
        return {"name": path, "size": os.fstat(self._descriptor(path)).st_size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it was given."""
        try:
            return self._descriptor(path) >= 0
        except FileNotFoundError:
            return False

    def isfile(self, path: str) -> bool:
        """The same."""
        return self.exists(path)

    def glob(self, path: str, **_: Any) -> list[str]:
        """`path` itself: no name has wildcards."""
        return [path] if self.exists(path) else []

    def modified(self, path: str) -> datetime:
        """Always the same."""
        self._descriptor(path)
        return _LONG_AGO


class _Reader(io.RawIOBase):
    """Several may read one descriptor: each has a position of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size()}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        count = self._size() - self._at if size < 0 else size
        pieces = []
        while count > 0 and (piece := os.pread(self._descriptor, count, self._at)):
            pieces.append(piece)
            count -= len(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size
