"""Positions: how far each input was imported, in `imports.db` in the object's directory. Rejects: the rejected rows."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from lakebed.errors import FormatTooNew
from lakebed.transfer.source import Source

__all__ = ["FILE_NAME", "Position", "Positions", "Rejects"]

FILE_NAME = "imports.db"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (
    head TEXT NOT NULL,       -- hash of the input's beginning
    mapping TEXT NOT NULL,    -- hash of the options that make events of rows
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    offset INTEGER NOT NULL,  -- the end of the durable rows, in bytes as inflated, or in rows of Parquet
    rows INTEGER NOT NULL,    -- the number of these rows
    received INTEGER NOT NULL,-- the same without blank lines
    rejected INTEGER NOT NULL,-- how many of them were refused
    digest TEXT NOT NULL,     -- hash of all bytes up to there
    next_seq INTEGER NOT NULL,-- next seq of the log before the first row after `offset` was sent
    ahead INTEGER NOT NULL,   -- rows after `offset` that may be in the log all the same
    complete INTEGER NOT NULL,
    PRIMARY KEY (path, head, mapping)
) STRICT, WITHOUT ROWID;
"""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far one input was imported. `_SCHEMA` describes each field."""

    head: str
    mapping: str
    path: str
    size: int
    modified: int
    offset: int = 0
    rows: int = 0
    received: int = 0
    rejected: int = 0
    digest: str = ""
    next_seq: int = 0
    ahead: int = 0
    complete: bool = False


_COLUMNS = Position.__struct_fields__


class Positions:
    """The positions of one object's imports. Belongs to one thread; its calls block.

    The file lies beside the log that it describes, so that a copy of the directory has both.
    """

    def __init__(self, directory: Path) -> None:
        self._connection = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            self._connection.close()
            raise FormatTooNew(
                f"{directory / FILE_NAME} was written by a newer Lakebed",
                hint="Install the Lakebed that wrote it, or a newer one",
            )
        self._connection.executescript(
            f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {_SCHEMA} PRAGMA user_version = {_VERSION};"
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, source: Source, mapping: str) -> list[Position]:
        """Positions of earlier imports of `source`: inputs with the same beginning, or a smaller file at its path."""
        rows = self._connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM positions WHERE mapping = ? AND (head = ? OR path = ? AND size <= ?)"
            " ORDER BY path = ? DESC, offset DESC",
            (mapping, source.head, path := str(source.path.absolute()), source.size, path),
        )
        return [msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Position, strict=False) for row in rows]

    def put(self, position: Position) -> None:
        """Store `position`; it is durable when this returns."""
        marks = ", ".join("?" * len(_COLUMNS))
        self._connection.execute(
            f"INSERT OR REPLACE INTO positions ({', '.join(_COLUMNS)}) VALUES ({marks})",
            msgspec.structs.astuple(position),
        )


class _Refused(msgspec.Struct):
    file: str
    row: int
    reason: str
    raw: str


_decode = msgspec.json.Decoder(_Refused)


class Rejects:
    """A file with one JSON object a line: `file`, `row` (from 1), `reason`, `raw`. A row is added once.

    Args:
        path: the file; if None, no rows are stored.
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
