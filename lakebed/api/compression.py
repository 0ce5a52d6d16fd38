"""decompress(): removes one Content-Encoding, never into more bytes than a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
import zstandard

__all__ = ["ENCODINGS", "Corrupt", "TooLong", "decompress"]

_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's names for its containers
_ZLIB_HEADER = 0x78
# A frame may ask for any window. Eight MiB is what RFC 9659 lets a Content-Encoding ask for.
_ZSTD_WINDOW = 8 << 20
_ZSTD_PIECE = 64  # may become 2 MiB: four bytes may stand for a block of 128 KiB


class Corrupt(Exception):
    """When the bytes are not valid in their encoding, end too early, or continue after their end."""


class TooLong(Exception):
    """When the decompressed bytes would exceed the limit."""


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """Decompress `data`, which is in one of `ENCODINGS`. Blocks; takes about `limit` bytes of memory.

    Raises:
        TooLong: the result has more than `limit` bytes. No more than that was decompressed.
        Corrupt: the data is not valid.
    """
    return ENCODINGS[encoding](data, limit)


def _zlib(data: bytes, limit: int, container: int) -> bytes:
    inflater = zlib.decompressobj(container)
    try:
        result = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise Corrupt(str(error)) from None
    if len(result) > limit:
        raise TooLong
    if not inflater.eof:
        raise Corrupt("it ends too early")
    if inflater.unused_data:  # gzip allows several members: a megabyte of empty ones would take minutes
        raise Corrupt("something follows its end")
    return result


def _gzip(data: bytes, limit: int) -> bytes:
    return _zlib(data, limit, _GZIP)


def _deflate(data: bytes, limit: int) -> bytes:
    """RFC 9110 means zlib's container by this name; some clients send bare deflate."""
    return _zlib(data, limit, _ZLIB if data[:1] and data[0] & 0x0F == _ZLIB_HEADER & 0x0F else _BARE)


def _brotli(data: bytes, limit: int) -> bytes:
    inflater = brotli.Decompressor()
    pieces, size = [], 0
    try:
        piece = inflater.process(data, output_buffer_limit=limit + 1)
        while piece:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise TooLong
            piece = inflater.process(b"", output_buffer_limit=limit + 1 - size)
    except brotli.error:
        raise Corrupt("it is not brotli, or something follows its end") from None
    if not inflater.is_finished():
        raise Corrupt("it ends too early")
    return b"".join(pieces)


def _zstd(data: bytes, limit: int) -> bytes:
    """In small pieces: zstandard bounds its output only if the frame states its size, and frames can lie."""
    inflater = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    pieces, size, position = [], 0, 0
    try:
        while position < len(data) and not inflater.eof:
            pieces.append(inflater.decompress(data[position : position + _ZSTD_PIECE]))
            size += len(pieces[-1])
            position += _ZSTD_PIECE
            if size > limit:
                raise TooLong
    except zstandard.ZstdError as error:
        raise Corrupt(str(error)) from None
    if not inflater.eof:
        raise Corrupt("it ends too early")
    if inflater.unused_data or position < len(data):
        raise Corrupt("something follows its end")
    return b"".join(pieces)


ENCODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
