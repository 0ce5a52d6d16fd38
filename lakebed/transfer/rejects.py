"""Rejects: refused rows with their reasons, in a file that can be mended and imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import msgspec

__all__ = ["Rejects"]


class _Refused(msgspec.Struct):
    file: str
    row: int
    reason: str
    raw: str


_decode = msgspec.json.Decoder(_Refused)


class Rejects:
    """A file with one JSON object a line: `file`, `row` (from 1), `reason`, `raw`. A row is added once.

    Args:
        path: the file; None stores nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: IO[bytes] | None = None
        self._written: set[tuple[str, int]] = set()
        if path is None:
            return
        if path.exists():
            self._written = {(refused.file, refused.row) for refused in _decode.decode_lines(path.read_bytes())}
        self._file = path.open("ab")

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def add(self, file: str, row: int, reason: str, raw: bytes) -> None:
        """Add a refused row."""
        if self._file is not None and (file, row) not in self._written:
            refused = _Refused(file, row, reason, raw.decode("utf-8", "backslashreplace"))
            self._file.write(msgspec.json.encode(refused) + b"\n")

    def sync(self) -> None:
        """Return when all added rows are on disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
