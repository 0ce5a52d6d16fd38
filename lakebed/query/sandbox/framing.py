"""Frames on the socket between server and child: a tag, a length, bytes."""

from __future__ import annotations

import socket
import struct

__all__ = ["DATA", "DESCRIPTORS", "END", "ERROR", "INPUTS", "MAX_BYTES", "PLAN", "QUESTION", "receive", "send"]

QUESTION, PLAN, INPUTS, DESCRIPTORS, DATA, END, ERROR = b"Q", b"P", b"I", b"F", b"D", b"Z", b"E"
MAX_BYTES = 1 << 20  # of a frame that the child sends
_HEAD = struct.Struct("<cI")


def send(connection: socket.socket, tag: bytes, payload: bytes | memoryview = b"") -> None:
    """Write one frame. Blocks while the other side does not read."""
    connection.sendall(_HEAD.pack(tag, len(payload)))
    connection.sendall(payload)


def receive(connection: socket.socket, most: int) -> tuple[bytes, bytes]:
    """The next frame's tag and bytes, of which there may be `most`. Blocks.

    Raises:
        EOFError: the other side is gone.
        ValueError: it says a length beyond `most`.
    """
    tag, length = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if length > most:
        raise ValueError(f"a frame of {length} bytes, {most} are the most")
    return tag, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces, left = [], count
    while left:
        piece = connection.recv(min(left, 1 << 16))
        if not piece:
            raise EOFError("the other side is gone")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
