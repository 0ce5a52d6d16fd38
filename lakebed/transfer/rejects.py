"""Rows that were refused, with why, in a file that can be mended and imported."""

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
    """One JSON object a line: `file`, `row` (from 1), `reason`, `raw`. What is in the file already is not added again.

    Args:
        path: the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: IO[bytes] | None = None
        self._there: set[tuple[str, int]] = set()
        if path is None:
            return
        if path.exists():
            self._there = {(one.file, one.row) for one in _decode.decode_lines(path.read_bytes())}
        self._file = path.open("ab")

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def add(self, file: str, row: int, reason: str, raw: bytes) -> None:
        """Note a refused row."""
        if self._file is not None and (file, row) not in self._there:
            refused = _Refused(file, row, reason, raw.decode("utf-8", "backslashreplace"))
            self._file.write(msgspec.json.encode(refused) + b"\n")

    def sync(self) -> None:
        """Return when what was added is on disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
