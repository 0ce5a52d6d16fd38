"""Rows of an input, many at a time, and the ids that rows without one are given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["ROWS", "Chain", "Chunk"]

ROWS = 5_000
"""Rows of a chunk at most: what the log takes in one frame."""


class Chunk(msgspec.Struct, frozen=True):
    """Rows that follow each other.

    Attributes:
        raws: each row's bytes, with what ends it. Rows of an input together are the whole input.
        values: the same rows taken apart; None where they are lines of text.
        number: of the first row, from 0.
    """

    raws: Sequence[bytes]
    values: Sequence[Any] | None
    number: int

    def __len__(self) -> int:
        return len(self.raws)


class Chain:
    """A hash of all bytes so far. After each row it is that row's id.

    Two inputs give a row the same id when, and only when, they are the same up to there: importing a file again finds
    every row known, a file that has grown brings only what is new, and equal rows of one file stay apart.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def skip(self, data: bytes) -> None:
        """Go on over bytes whose ids nobody needs."""
        self._hash.update(data)

    def ids(self, raws: Sequence[bytes]) -> list[str]:
        """The ids of rows. What ends a line is not part of it, so an unfinished last line has its id already."""
        found = []
        for raw in raws:
            row = raw.rstrip(b"\r\n")
            self._hash.update(row)
            found.append(self.digest())
            self._hash.update(raw[len(row) :])
        return found

    def digest(self) -> str:
        """Of everything so far: 32 hexadecimal digits."""
        return self._hash.copy().hexdigest()[:32]
