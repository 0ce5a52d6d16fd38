"""inflate(): one layer of Content-Encoding taken off, never into more bytes than a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import brotli
import zstandard

__all__ = ["ENCODINGS", "Corrupt", "TooLong", "inflate"]

_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's names for its containers
_ZLIB_HEADER = 0x78
# A frame may ask for any window. Eight MiB is what RFC 9659 lets a Content-Encoding ask for.
_ZSTD_WINDOW = 8 << 20
_ZSTD_PIECE = 64  # may become 2 MiB: four bytes may stand for a block of 128 KiB


class Corrupt(Exception):
    """When the bytes are not what their encoding says, end too early, or go on after their end."""


class TooLong(Exception):
    """When more than the limit would come out."""


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """What `data` was before it was encoded as one of `ENCODINGS`. Blocks; takes about `limit` bytes of memory.

    Raises:
        TooLong: it has more than `limit` bytes. No more than that was inflated.
        Corrupt: it cannot be inflated.
    """
    return ENCODINGS[encoding](data, limit)


def _zlib(data: bytes, limit: int, container: int) -> bytes:
    inflater = zlib.decompressobj(container)
    try:
        found = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise Corrupt(str(error)) from None
    if len(found) > limit:
        raise TooLong
    if not inflater.eof:
        raise Corrupt("it ends too early")
    if inflater.unused_data:  # gzip allows several members: a megabyte of empty ones would take minutes
        raise Corrupt("something follows its end")
    return found


def _gzip(data: bytes, limit: int) -> bytes:
    return _zlib(data, limit, _GZIP)


def _deflate(data: bytes, limit: int) -> bytes:
    """RFC 9110 means zlib's container by it; some clients send bare deflate."""
    return _zlib(data, limit, _ZLIB if data[:1] and data[0] & 0x0F == _ZLIB_HEADER & 0x0F else _BARE)


def _brotli(data: bytes, limit: int) -> bytes:
    inflater = brotli.Decompressor()
    found, size = [], 0
    try:
        piece = inflater.process(data, output_buffer_limit=limit + 1)
        while piece:
            found.append(piece)
            size += len(piece)
            if size > limit:
                raise TooLong
            piece = inflater.process(b"", output_buffer_limit=limit + 1 - size)
    except brotli.error:
        raise Corrupt("it is not brotli, or something follows its end") from None
    if not inflater.is_finished():
        raise Corrupt("it ends too early")
    return b"".join(found)


def _zstd(data: bytes, limit: int) -> bytes:
    """In small pieces: zstandard bounds what comes out at once only where a frame says its size, and frames lie."""
    inflater = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    found, size, at = [], 0, 0
    try:
        while at < len(data) and not inflater.eof:
            found.append(inflater.decompress(data[at : at + _ZSTD_PIECE]))
            size += len(found[-1])
            at += _ZSTD_PIECE
            if size > limit:
                raise TooLong
    except zstandard.ZstdError as error:
        raise Corrupt(str(error)) from None
    if not inflater.eof:
        raise Corrupt("it ends too early")
    if inflater.unused_data or at < len(data):
        raise Corrupt("something follows its end")
    return b"".join(found)


ENCODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
