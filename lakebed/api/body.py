"""Reading a request's body, within limits of size and time, and without its Content-Encoding."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import brotli
import msgspec
import zstandard
from starlette.requests import Request

from lakebed.api.errors import Refusal
from lakebed.api.middleware import Exchange, header
from lakebed.concurrency import run_in_thread

__all__ = ["UNREADABLE", "Body", "Corrupt", "TooLong", "check_count", "decoded", "decompress", "json_object"]

_GZIP, _ZLIB, _BARE = 31, 15, -15  # the numbers by which zlib names containers
_ZLIB_HEADER = 0x78
# A frame may ask for a window of any size. RFC 9659 limits a Content-Encoding to eight MiB.
_ZSTD_WINDOW = 8 << 20
_ZSTD_PIECE = 64  # 64 bytes may become 2 MiB: four bytes may stand for a block of 128 KiB


class Corrupt(Exception):
    """The bytes are not valid in their encoding, end too early, or continue after their end."""


class TooLong(Exception):
    """The decompressed bytes would exceed the limit."""


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """Decompress `data`, which is in one of `ENCODINGS`. The call blocks and needs about `limit` bytes of memory.

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
        raise Corrupt("data follows its end")
    return result


def _gzip(data: bytes, limit: int) -> bytes:
    return _zlib(data, limit, _GZIP)


def _deflate(data: bytes, limit: int) -> bytes:
    """Decompress "deflate": zlib's container, as RFC 9110 defines, or bare deflate, which some clients send."""
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
        raise Corrupt("it is not brotli, or data follows its end") from None
    if not inflater.is_finished():
        raise Corrupt("it ends too early")
    return b"".join(pieces)


def _zstd(data: bytes, limit: int) -> bytes:
    """Decompress in small pieces: zstandard bounds its output only if the frame states its size, and frames can lie."""
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
        raise Corrupt("data follows its end")
    return b"".join(pieces)


ENCODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}


_T = TypeVar("_T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of decoding untrusted JSON."""

_INLINE_BYTES = 8 << 10  # more than this is decompressed in a thread: the result may be large enough to block the loop
# If one item of a batch is broken, the others are separated bracket by bracket, a microsecond each, on the loop.
_BRACKETS = 250_000
_COMMAS = 8  # commas in a small event: estimates the number of events of a batch that cannot be decoded
_MAX_DIGITS = 20  # digits of a Content-Length


class Body(msgspec.Struct, frozen=True):
    """Limits of request bodies.

    Attributes:
        max_bytes: limit of one body, both as sent and decompressed.
        timeout_s: seconds within which the whole body must arrive.
    """

    max_bytes: int = 5 << 20
    timeout_s: float = 10.0

    async def read(self, request: Request) -> bytes:
        """Read the body of `request`, and undo its Content-Encoding (gzip, deflate, br or zstd, applied once).

        Raises:
            Refusal: 413 the body is too large, also without a Content-Length; 408 too slow; 415 in another encoding;
                400 not valid in its encoding, or has too many brackets; 503 too many bytes of bodies wait already.
        """
        encoding = header(request.scope, b"content-encoding").strip().lower()
        if encoding not in ("identity", "", *ENCODINGS):
            known = ", ".join(ENCODINGS)
            message = f"A body may be encoded once, as one of {known}"
            headers = {"Accept-Encoding": known}
            raise Refusal(415, "UNSUPPORTED_ENCODING", message, headers=headers, encoding=encoding[:100])
        length = header(request.scope, b"content-length")
        if length.isdecimal() and (len(length) > _MAX_DIGITS or int(length) > self.max_bytes):
            raise self._too_large()
        try:
            async with asyncio.timeout(self.timeout_s):
                sent = await self._read_all(request)
        except TimeoutError:
            message = "The body did not arrive in time"
            raise Refusal(408, "BODY_TIMEOUT", message, seconds=self.timeout_s) from None
        body = sent if encoding in ("identity", "") else await self._decompressed(sent, encoding)
        if len(body) > _BRACKETS and body.count(b"{") + body.count(b"[") > _BRACKETS:
            message = f"The body has more than {_BRACKETS} opening brackets: send fewer values at once"
            raise Refusal(400, "BODY_TOO_COMPLEX", message, limit=_BRACKETS)
        exchange = Exchange.of(request.scope)
        if body is not sent and exchange is not None:
            exchange.hold(len(body))
        return body

    async def _read_all(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.max_bytes:
                raise self._too_large()
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _decompressed(self, sent: bytes, encoding: str) -> bytes:
        try:
            if len(sent) <= _INLINE_BYTES:
                return decompress(sent, encoding, self.max_bytes)
            return await run_in_thread("decompress", lambda: decompress(sent, encoding, self.max_bytes))
        except TooLong:
            raise self._too_large() from None
        except Corrupt as error:
            message = f"The body is not valid {encoding}: {error}"
            raise Refusal(400, "INVALID_ENCODING", message) from None

    def _too_large(self) -> Refusal:
        message = f"The body has more than {self.max_bytes} bytes"
        return Refusal(413, "BODY_TOO_LARGE", message, limit=self.max_bytes)


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]


_array = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(_Envelope)


def check_count(body: bytes, maximum: int) -> None:
    """Make sure that a batch has at most `maximum` events: a rejected event costs more than its bytes.

    Raises:
        Refusal: 413, the batch has more.
    """
    if body.count(b",") < maximum and body.count(b"\n") < maximum:  # true of nearly every batch
        return
    text = body.strip()
    try:
        count = len(_array.decode(text)) if text[:1] == b"[" else len(_envelope.decode(text).batch)
    except UNREADABLE:  # lines of JSON, an object without a list `batch`, or invalid JSON
        count = max(text.count(b"\n") + 1, text.count(b",") // _COMMAS)
    if count > maximum:
        message = f"The batch has {count} events, the limit is {maximum}: send it in parts"
        raise Refusal(413, "BATCH_TOO_LARGE", message, limit=maximum)


def decoded(body: bytes, kind: type[_T], noun: str, **details: Any) -> _T:
    """Decode the body as `kind`.

    Args:
        noun: the name of the expected body, for the error message, such as "question".
        details: details of the refusal, such as an example.

    Raises:
        Refusal: 400, INVALID_JSON if the body is not JSON, or INVALID_BODY, which names the field that does not fit.
    """
    try:
        body.decode()  # msgspec does not check the text of fields that it skips
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        # If `kind` is object, only a number beyond doubles can be invalid: for the sender that is bad JSON.
        if isinstance(error, msgspec.ValidationError) and kind is not object:
            raise Refusal(400, "INVALID_BODY", f"The body is not a valid {noun}: {error}", **details) from None
        raise Refusal(400, "INVALID_JSON", f"The body is not JSON: {error}", **details) from None


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises Refusal: 400, the body is not an object."""
    value = decoded(body, object, "event")
    if not isinstance(value, dict):
        raise Refusal(400, "INVALID_JSON", "The body is not a JSON object; several events go to /track/batch")
    return value
