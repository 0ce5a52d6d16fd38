"""Frames on the socket between server and worker process: a tag, a length, bytes."""

from __future__ import annotations

import socket
import struct

__all__ = ["DATA", "DESCRIPTORS", "END", "ERROR", "INPUTS", "MAX_BYTES", "PLAN", "REQUEST", "receive", "send"]

REQUEST, PLAN, INPUTS, DESCRIPTORS, DATA, END, ERROR = b"Q", b"P", b"I", b"F", b"D", b"Z", b"E"
MAX_BYTES = 1 << 20  # the limit of a frame that the worker sends
_HEAD = struct.Struct("<cI")


def send(connection: socket.socket, tag: bytes, payload: bytes | memoryview = b"") -> None:
    """Write one frame. Blocks until the other side reads."""
    connection.sendall(_HEAD.pack(tag, len(payload)))
    connection.sendall(payload)


def receive(connection: socket.socket, max_bytes: int) -> tuple[bytes, bytes]:
    """The tag and payload of the next frame. Blocks.

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
