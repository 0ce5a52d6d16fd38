"""Reading a request's body, within limits of size and time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request

from lakebed.api.errors import Refusal

__all__ = ["Body", "json_object"]

# The rest of a refused body is read and thrown away, so far: a connection that is closed while bytes lie unread is
# reset, and a client that is still sending then never sees the answer. Beyond that, it is closed all the same.
_LINGER_BYTES = 32 << 20
_CLOSE = {"Connection": "close"}


class Body(msgspec.Struct, frozen=True):
    """The limits within which bodies are read.

    Attributes:
        max_bytes: of one body.
        timeout_s: seconds in which all of it must have arrived.
    """

    max_bytes: int = 1 << 20
    timeout_s: float = 10.0

    async def read(self, request: Request) -> bytes:
        """The body of `request`.

        Raises:
            Refusal: 413 too large, also where its length is not said beforehand; 408 too slow; 415 compressed.
        """
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise Refusal(415, "UNSUPPORTED_ENCODING", "Send the body uncompressed", encoding=encoding, headers=_CLOSE)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._all(request)
        except TimeoutError:
            message = "The body did not arrive in time"
            raise Refusal(408, "BODY_TIMEOUT", message, seconds=self.timeout_s, headers=_CLOSE) from None

    async def _all(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= self.max_bytes:
                chunks.append(chunk)
            elif size > self.max_bytes + _LINGER_BYTES:
                break
            else:
                chunks.clear()
        if size > self.max_bytes:
            raise self._too_large()
        return b"".join(chunks)

    def _too_large(self) -> Refusal:
        message = f"The body has more than {self.max_bytes} bytes"
        return Refusal(413, "BODY_TOO_LARGE", message, limit=self.max_bytes, headers=_CLOSE)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.

    Raises:
        Refusal: 400, it is none.
    """
    try:
        body.decode()
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "INVALID_JSON", f"The body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refusal(400, "INVALID_JSON", "The body is not a JSON object; several events go to /track/batch")
    return found
