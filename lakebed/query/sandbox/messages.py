"""The messages between server and worker process: JSON or bytes, in frames of tag, length and payload on a socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lakebed.query.bounds import Bounds

__all__ = [
    "DATA",
    "DESCRIPTORS",
    "END",
    "ERROR",
    "INPUTS",
    "MAX_BYTES",
    "PASSED_PREFIX",
    "PLAN",
    "REQUEST",
    "Failure",
    "Inputs",
    "Plan",
    "SandboxRequest",
    "receive",
    "send",
]

REQUEST, PLAN, INPUTS, DESCRIPTORS, DATA, END, ERROR = b"Q", b"P", b"I", b"F", b"D", b"Z", b"E"
MAX_BYTES = 1 << 20  # the limit of a frame that the worker sends
_HEAD = struct.Struct("<cI")


def send(connection: socket.socket, tag: bytes, payload: bytes | memoryview = b"") -> None:
    """Write one frame. Blocks until the other side reads."""
    connection.sendall(_HEAD.pack(tag, len(payload)))
    connection.sendall(payload)


def receive(connection: socket.socket, max_bytes: int) -> tuple[bytes, bytes]:
    """Read the next frame. Returns its tag and payload. Blocks.

    Raises:
        EOFError: the other side has closed the socket.
        ValueError: the frame announces more than `max_bytes`.
    """
    tag, length = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if length > max_bytes:
        raise ValueError(f"a frame has {length} bytes, the limit is {max_bytes}")
    return tag, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces, left = [], count
    while left:
        piece = connection.recv(min(left, 1 << 16))
        if not piece:
            raise EOFError("the other side has closed the socket")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


PASSED_PREFIX = "passed://"
"""The paths of passed files: this, and the number of a descriptor."""


class SandboxRequest(msgspec.Struct, frozen=True):
    """The message with a query. The query's parameters follow it, as an Arrow stream of one row.

    Attributes:
        names: names of the parameters; None if the SQL has `?`.
        tables: tables that the SQL may name, in lower case.
        seconds: time after which the worker ends itself.
    """

    sql: str
    names: list[str] | None
    tables: list[str]
    seconds: float
    memory_bytes: int
    threads: int


class Plan(msgspec.Struct, frozen=True):
    """The message with the inputs that a parsed query needs.

    Attributes:
        tables: number of times that each table is named, in lower case.
        is_count: whether the query is `SELECT count(*) FROM events`.
        mentions_person: whether the query may read `person_id` of events.
        bounds: timestamps that each use of `events` can read.
        layers: layers that confine the worker.
    """

    tables: Mapping[str, int]
    is_count: bool
    mentions_person: bool
    bounds: tuple[Bounds, ...]
    layers: tuple[str, ...]


class Inputs(msgspec.Struct, frozen=True):
    """The message with a query's inputs. Descriptors follow: the files, then for each table a memory file (Arrow).

    Attributes:
        files: number of files.
        tables: names of the tables.
        statements: Lakebed's SQL statements that create the views, with their parameters.
        rows: limit of rows in the answer.
    """

    files: int
    tables: list[str]
    statements: list[tuple[str, list[Any] | None]]
    rows: int


class Failure(msgspec.Struct, frozen=True):
    """The message of a query that failed, with its error."""

    kind: Literal["refused", "error", "too_large", "crashed"]
    message: str
    facts: Mapping[str, Any] = {}
