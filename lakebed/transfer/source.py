"""Source: an input in one of the formats, compressed or not, read from any row on, many rows at a time."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import os
import re
import select
import sys
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from lakebed.errors import InvalidImport

__all__ = ["FORMATS", "ROWS", "Chain", "Chunk", "Source", "inputs", "parse_access_log"]

ROWS = 5_000
"""Rows of a chunk at most: as many as fit in one frame of the log."""


class Chunk(msgspec.Struct, frozen=True):
    """Consecutive rows of an input.

    Attributes:
        raws: the bytes of each row, with its line end. Joined, the rows of an input are the whole input.
        values: the rows as Python values; None if the format is lines of text.
        number: the number of the first row in the input, from 0.
    """

    raws: Sequence[bytes]
    values: Sequence[Any] | None
    number: int

    def __len__(self) -> int:
        return len(self.raws)


class Chain:
    """A hash of all bytes so far; its value after a row is the id of that row.

    Two inputs give a row the same id if, and only if, they are equal up to that row: if a file is imported again, every
    row is known; if the file has grown, only the added rows are new; and equal rows of one file have different ids.
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


_LINE = re.compile(
    r"(?P<ip>\S+) \S+ (?P<user>.+?) \[(?P<time>[^\]]+)\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-)'
    r'(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
_TIME = "%d/%b/%Y:%H:%M:%S %z"


def parse_access_log(line: str) -> dict[str, Any]:
    """The event of a line of an access log, in Segment's names.

    The anonymous id of a visitor is a hash of address and user agent, as log analysers count people: all visitors
    behind one address with the same browser count as one. No part of a line is lost: the rest is in the properties.

    Raises:
        ValueError: the line has another format.
    """
    match = _LINE.fullmatch(line.rstrip("\r\n "))
    if match is None:
        raise ValueError("the line is not in the common or combined log format")
    fields = {name: None if value in ("-", "") else value for name, value in match.groupdict().items()}
    method, _, rest = (fields["request"] or "").partition(" ")
    path, _, protocol = rest.rpartition(" ") if " " in rest else (rest, "", "")
    moment = datetime.strptime(match["time"], _TIME)  # noqa: DTZ007 - the format has the zone
    context = {"ip": fields["ip"], "userAgent": fields["agent"], "page": {"path": path, "referrer": fields["referrer"]}}
    return {
        "timestamp": moment.isoformat(),
        "userId": fields["user"],
        "anonymousId": hashlib.sha256(f"{fields['ip']} {fields['agent']}".encode()).hexdigest()[:24],
        "context": {name: value for name, value in context.items() if value},
        "properties": {
            "method": method,
            "path": path,
            "protocol": protocol,
            "status_code": int(match["status"]),
            "bytes": int(fields["bytes"] or 0),
            **({"referrer": fields["referrer"]} if fields["referrer"] else {}),
        },
    }


FORMATS = ("ndjson", "csv", "tsv", "parquet", "apache")
STDIN = Path("-")
_HEAD_BYTES = 64 << 10
_BLOCK_BYTES = 4 << 20
_MAX_LINE_BYTES = 32 << 20
_POLL_S = 0.2
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, ValueError, csv.Error)
_SUFFIXES = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".log": "apache",
}


def inputs(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` name; for a directory, all files below it except hidden ones, in the order of their names.

    Raises:
        InvalidImport: a path does not exist.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = (file for file in sorted(path.rglob("*")) if file.is_file())
            files += [file for file in below if not any(p.startswith(".") for p in file.relative_to(path).parts)]
        elif path == STDIN or path.exists():
            files.append(path)
        else:
            raise InvalidImport(f"{path} does not exist")
    return files


class Source:
    """One input, opened for reading.

    Args:
        path: the file, or `STDIN`.
        format_name: one of `FORMATS`; if empty, it is guessed from the name and the content.
        encoding: the encoding of CSV text.

    Attributes:
        size: the size in bytes; 0 for stdin.
        head: a hash of the beginning.
        modified: the time of the last write, in nanoseconds since 1970.
        columns: the names of the columns, of CSV and Parquet.
    """

    def __init__(self, path: Path, format_name: str = "", encoding: str = "utf-8-sig") -> None:
        self.path = path
        self.is_stdin = path == STDIN
        self._stdin = _Stdin()
        self._raw: io.BufferedReader[Any] = io.BufferedReader(self._stdin) if self.is_stdin else path.open("rb")
        self._encoding = encoding
        self.columns: list[str] = []
        self.size = self.modified = 0
        if not self.is_stdin:
            facts = path.stat()
            self.size, self.modified = facts.st_size, facts.st_mtime_ns
        try:
            start = b"" if self.is_stdin else self._raw.read(_HEAD_BYTES)
            self.head = hashlib.sha256(start).hexdigest()[:32]
            self._stream = self._inflated(start)
            self.format = format_name or self._guess(start)
        except BaseException as error:
            self.close()
            if isinstance(error, _UNREADABLE):
                raise InvalidImport(f"{path} cannot be read: {error}") from error
            raise

    def stop(self) -> None:
        """Make a read that waits for stdin return soon, as at the end of the input. Any thread may call `stop`."""
        self._stdin.stopped = True

    def close(self) -> None:
        """Close the file. Standard input itself stays open."""
        self._raw.close()

    @property
    def done(self) -> int:
        """The number of bytes of the file that were read so far; 0 for stdin."""
        return 0 if self.is_stdin else self._raw.tell()

    def rewind(self) -> None:
        """Go back to the beginning of the file."""
        self._raw.seek(0)
        self._stream = self._inflated(self._raw.read(_HEAD_BYTES))

    def skip(self, offset: int, chain: Chain) -> bool:
        """Read up to `offset`, as `offset_of` counts, into `chain`. Returns whether the input is that long."""
        if self.format == "parquet":
            rows = itertools.chain.from_iterable(chunk.raws for chunk in self._parquet())
            taken = 0
            for raw in itertools.islice(rows, offset):
                chain.skip(raw)
                taken += 1
            return taken == offset
        while offset:
            block = self._stream.read(min(offset, _BLOCK_BYTES))
            if not block:
                return False
            chain.skip(block)
            offset -= len(block)
        return True

    def offset_of(self, chunk: Chunk) -> int:
        """The length of a chunk: in bytes as inflated, for Parquet in rows."""
        return len(chunk.raws) if self.format == "parquet" else sum(map(len, chunk.raws))

    def chunks(self, number: int = 0, offset: int = 0) -> Iterator[Chunk]:
        """Read all rows after those that `skip` has read, in chunks.

        Args:
            number: the number of the first row.
            offset: the offset that `skip` was called with.

        Raises:
            InvalidImport: the file cannot be read in its format.
        """
        if self.format == "parquet":
            pieces = self._parquet(offset)
        else:
            pieces = self._csv(offset) if self.format in ("csv", "tsv") else self._lines()
        try:
            for chunk in pieces:
                yield Chunk(chunk.raws, chunk.values, number)
                number += len(chunk)
        except _UNREADABLE as error:
            raise InvalidImport(f"reading {self.path} stopped after row {number:,}: {error}") from error

    def _lines(self) -> Iterator[Chunk]:
        rest = b""
        while block := self._stream.read(_BLOCK_BYTES):
            if len(rest) > _MAX_LINE_BYTES:
                raise ValueError(f"a line has more than {_MAX_LINE_BYTES:,} bytes; events are lines, not one array")
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for start in range(0, len(lines), ROWS):
                yield Chunk([line + b"\n" for line in lines[start : start + ROWS]], None, 0)
        if rest:
            yield Chunk([rest], None, 0)

    def _csv(self, offset: int) -> Iterator[Chunk]:
        """Rows as lists of texts. The first line, with the names of the columns, is part of the first row's bytes."""
        seen: list[bytes] = []
        reader = csv.reader(self._texts(seen), delimiter="\t" if self.format == "tsv" else ",")
        if offset:
            self._read_columns()
        else:
            self.columns = next(reader, [])
        raws, values, header = [], [], b"".join(seen)
        seen.clear()
        for row in reader:
            raws.append(header + b"".join(seen))
            values.append(row)
            header = b""
            seen.clear()
            if len(raws) == ROWS:
                yield Chunk(raws, values, 0)
                raws, values = [], []
        if raws:
            yield Chunk(raws, values, 0)

    def _read_columns(self) -> None:
        """Read the columns of CSV from the file's first line, as this source begins at a later row."""
        with contextlib.closing(Source(self.path, self.format, self._encoding)) as again:
            texts = again._texts([])  # noqa: SLF001 - this class's own
            self.columns = next(csv.reader(texts, delimiter="\t" if self.format == "tsv" else ","), [])

    def _texts(self, seen: list[bytes]) -> Iterator[str]:
        for line in self._stream:
            seen.append(line)
            yield line.decode(self._encoding, "surrogateescape")

    def _parquet(self, start: int = 0) -> Iterator[Chunk]:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self._raw)
        self.columns = file.schema_arrow.names
        for batch in file.iter_batches(ROWS):
            if start >= batch.num_rows:
                start -= batch.num_rows
                continue
            values = batch.slice(start).to_pylist()
            start = 0
            yield Chunk([msgspec.json.encode(value, enc_hook=str) for value in values], values, 0)

    def _inflated(self, start: bytes) -> io.BufferedReader[Any]:
        if self.is_stdin:
            start = self._raw.peek(len(_ZSTD))
        else:
            self._raw.seek(0)
        if start.startswith(_GZIP):
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw, mode="rb"), _BLOCK_BYTES)
        if start.startswith(_ZSTD):
            import pyarrow as pa

            zstd: Any = pa.CompressedInputStream  # pyarrow has no types
            return io.BufferedReader(zstd(self._raw, "zstd"), _BLOCK_BYTES)
        return self._raw

    def _guess(self, start: bytes) -> str:
        names = [suffix for suffix in self.path.suffixes if suffix in _SUFFIXES]
        if names:
            return _SUFFIXES[names[-1]]
        if start.startswith(_PARQUET):
            return "parquet"
        first = self._stream.peek(1)[:1]
        if first in (b"{", b""):  # Segment's archives have times as names; an empty file is empty in any format
            return "ndjson"
        raise InvalidImport(
            f"the format of {self.path} is not clear from its name", hint=f"Give --format: {', '.join(FORMATS)}"
        )


class _Stdin(io.RawIOBase):
    """Standard input, polled, so that another thread can stop a read that waits."""

    def __init__(self) -> None:
        self.stopped = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        descriptor = sys.stdin.fileno()
        while not self.stopped:
            if select.select([descriptor], [], [], _POLL_S)[0]:
                data = os.read(descriptor, len(buffer))
                buffer[: len(data)] = data
                return len(data)
        return 0
