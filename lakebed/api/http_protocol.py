"""HttpProtocol: uvicorn's HTTP over httptools, with limits that it lacks: on slow and large heads, on connections."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lakebed.api.errors import error_response
from lakebed.api.middleware import Exchange, HeldBytes

__all__ = ["HttpProtocol", "connection_class"]

_CLOSING = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_SPARE = 64  # connections beyond the limit that still get a 503; further ones are closed at once


class HttpProtocol(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        head_timeout_s: seconds from the first byte of a request, or from connecting, to the end of its headers. Then
            the connection is closed: uvicorn itself would wait forever.
        max_head_bytes: of a request line and headers; more is 431. uvicorn itself has no limit.
        max_connections: one more is answered 503 and closed.
        stalled_s: seconds after which the connection of a client that reads nothing is closed.
    """

    head_timeout_s = 10.0
    max_head_bytes = 64 << 10
    max_connections = 10_000
    stalled_s = 30.0

    _due: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections + _SPARE:
            transport.abort()
        elif len(self.connections) > self.max_connections:
            self.app = _full
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Parse, and check the limits of an incomplete head."""
        in_head = self._in_head()
        super().data_received(data)
        if not in_head or not self._in_head() or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.max_head_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._due is None:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """The head arrived in time."""
        self._stop_waiting()
        self._head_bytes = 0
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than the server sends."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken what was sent."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        self._taken()
        super().connection_lost(exc)

    def _in_head(self) -> bool:
        """Whether what comes next belongs to no request that the app knows of."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._due = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _too_slow(self) -> None:
        self._due = None
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        self.transport.write(_CLOSING % status)
        self.transport.close()


def connection_class(**limits: Any) -> type[HttpProtocol]:
    """`HttpProtocol` with other limits. A class, as uvicorn makes its protocols itself."""
    return type("HttpProtocol", (HttpProtocol,), limits)


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of connections beyond the limit: 503."""
    message = "Too many connections are open"
    refusal = error_response(503, "OVERLOADED", message, None, {"Retry-After": "1", "Connection": "close"})
    exchange = Exchange(scope, receive, send, HeldBytes(0), [])
    await refusal(scope, exchange.receive, exchange.send)
