"""Chunk and Chain: many rows of an input at a time, and the ids of rows that have none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["ROWS", "Chain", "Chunk"]

ROWS = 5_000
"""Rows of a chunk at most: as many as fit in one frame of the log."""


class Chunk(msgspec.Struct, frozen=True):
    """Rows that follow each other.

    Attributes:
        raws: the bytes of each row, with its line end. All rows of an input together are the whole input.
        values: the same rows as values; None if the format is lines of text.
        number: the number of the first row in the input, from 0.
    """

    raws: Sequence[bytes]
    values: Sequence[Any] | None
    number: int

    def __len__(self) -> int:
        return len(self.raws)


class Chain:
    """A hash of all bytes so far; after each row it is that row's id.

    Two inputs give a row the same id when, and only when, they are the same up to there: importing a file again finds
    every row known, a file that has grown brings only what is new, and equal rows of one file stay apart.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def skip(self, data: bytes) -> None:
        """Add bytes to the hash without giving ids."""
        self._hash.update(data)

    def ids(self, raws: Sequence[bytes]) -> list[str]:
        """The ids of rows. The line end is not part of an id, so an unfinished last line has its final id already."""
        ids = []
        for raw in raws:
            row = raw.rstrip(b"\r\n")
            self._hash.update(row)
            ids.append(self.digest())
            self._hash.update(raw[len(row) :])
        return ids

    def digest(self) -> str:
        """The hash of all bytes so far: 32 hexadecimal digits."""
        return self._hash.copy().hexdigest()[:32]
