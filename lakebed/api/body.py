"""Reading a request's body, within limits of size and time, and without its Content-Encoding."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from lakebed.api.compression import ENCODINGS, Corrupt, TooLong, inflate
from lakebed.api.errors import Refusal
from lakebed.api.middleware import Exchange, header
from lakebed.concurrency import run_in_thread

__all__ = ["UNREADABLE", "Body", "check_count", "decoded", "json_object"]

_T = TypeVar("_T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a stranger's JSON raises."""

_INLINE_BYTES = 8 << 10  # more than this is inflated in a thread: what it becomes may hold the loop for long
# Where one item of a batch is broken, the others are told apart bracket by bracket, a microsecond each, on the loop.
_BRACKETS = 250_000
_FIELDS = 8  # commas of a small event, to judge the size of a batch that cannot be read
_MAX_DIGITS = 20  # of a Content-Length


class Body(msgspec.Struct, frozen=True):
    """The limits within which bodies are read.

    Attributes:
        max_bytes: of one body, as it is sent and as it is inflated.
        timeout_s: seconds in which all of it must have arrived.
    """

    max_bytes: int = 5 << 20
    timeout_s: float = 10.0

    async def read(self, request: Request) -> bytes:
        """The body of `request`, without its Content-Encoding (gzip, deflate, br or zstd, once).

        Raises:
            Refusal: 413 too large, also where its length is not said beforehand; 408 too slow; 415 encoded otherwise;
                400 not what its encoding says; 503 too much waits already.
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
                sent = await self._all(request)
        except TimeoutError:
            message = "The body did not arrive in time"
            raise Refusal(408, "BODY_TIMEOUT", message, seconds=self.timeout_s) from None
        body = sent if encoding in ("identity", "") else await self._inflated(sent, encoding)
        if len(body) > _BRACKETS and body.count(b"{") + body.count(b"[") > _BRACKETS:
            message = f"The body opens more than {_BRACKETS} brackets: send fewer values at once"
            raise Refusal(400, "BODY_TOO_COMPLEX", message, limit=_BRACKETS)
        exchange = Exchange.of(request.scope)
        if body is not sent and exchange is not None:
            exchange.hold(len(body))
        return body

    async def _all(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.max_bytes:
                raise self._too_large()
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _inflated(self, sent: bytes, encoding: str) -> bytes:
        try:
            if len(sent) <= _INLINE_BYTES:
                return inflate(sent, encoding, self.max_bytes)
            return await run_in_thread("inflate", lambda: inflate(sent, encoding, self.max_bytes))
        except TooLong:
            raise self._too_large() from None
        except Corrupt as error:
            message = f"The body is not what Content-Encoding: {encoding} says: {error}"
            raise Refusal(400, "INVALID_ENCODING", message) from None

    def _too_large(self) -> Refusal:
        message = f"The body has more than {self.max_bytes} bytes"
        return Refusal(413, "BODY_TOO_LARGE", message, limit=self.max_bytes)


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]


_array = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(_Envelope)


def check_count(body: bytes, most: int) -> None:
    """Make sure that a batch has at most so many events: each that is refused costs more than its bytes.

    Raises:
        Refusal: 413, it has more.
    """
    if body.count(b",") < most and body.count(b"\n") < most:  # as good as always
        return
    text = body.strip()
    try:
        found = len(_array.decode(text)) if text[:1] == b"[" else len(_envelope.decode(text).batch)
    except UNREADABLE:  # lines, or an array that says more elsewhere
        found = max(text.count(b"\n") + 1, text.count(b",") // _FIELDS)
    if found > most:
        message = f"The batch has {found} events, the limit is {most}: send it in parts"
        raise Refusal(413, "BATCH_TOO_LARGE", message, limit=most)


def decoded(body: bytes, kind: type[_T], what: str, **details: Any) -> _T:
    """The body as `kind`.

    Args:
        what: the body should be, to say that it is not: "question".
        details: of the refusal, such as an example.

    Raises:
        Refusal: 400: INVALID_JSON, it is none, or INVALID_BODY, which names what does not fit.
    """
    try:
        body.decode()  # msgspec leaves what it skips unread
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        # Of a body of any shape only a number can be invalid, one that no double holds: to the sender that is bad JSON.
        if isinstance(error, msgspec.ValidationError) and kind is not object:
            raise Refusal(400, "INVALID_BODY", f"The body is no {what}: {error}", **details) from None
        raise Refusal(400, "INVALID_JSON", f"The body is not JSON: {error}", **details) from None


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises:
        Refusal: 400, it is none.
    """
    found = decoded(body, object, "event")
    if not isinstance(found, dict):
        raise Refusal(400, "INVALID_JSON", "The body is not a JSON object; several events go to /track/batch")
    return found
