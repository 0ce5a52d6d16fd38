"""Carriers: how messages of Cap'n Web reach a server. Needs the extra: `pip install 'lakebed[client]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lakebed.errors import AccessDenied, Backpressure, LakebedError, Unreachable
from lakebed.rpc.capnweb.session import Peer

__all__ = ["FAITHFUL", "HttpTransport", "WebSocketTransport"]

FAITHFUL = "X-Lakebed-Faithful"
"""The header by which a Lakebed asks for values in full: microseconds, decimals, whole results."""

_OK, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 200, 401, 403, 429
_EXTRA = "connecting to a server needs httpx and websockets: pip install 'lakebed[client]'"
_LONGEST_CLOSE_S = 5.0


class HttpTransport:
    """A batch of messages a request.

    Args:
        url: of the server's `/rpc`.
        headers: of each request.
        timeout_s: for a batch.

    Raises:
        ImportError: httpx is not installed.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        try:
            import httpx  # optional
        except ImportError as error:
            raise ImportError(_EXTRA) from error
        self._url = url
        self._error = httpx.HTTPError
        self._client = httpx.AsyncClient(headers=dict(headers), timeout=timeout_s, follow_redirects=False)

    async def exchange(self, messages: Sequence[str]) -> list[str]:
        """Send `messages`, and give what the server answers.

        Raises:
            Unreachable: there is no answer, or it is none of RPC. The calls may have been carried out.
            AccessDenied, Backpressure: the server said so.
        """
        try:
            response = await self._client.post(
                self._url, content="\n".join(messages).encode(), headers={"Content-Type": "text/plain"}
            )
        except self._error as error:
            raise Unreachable(f"{self._url} does not answer: {error or type(error).__name__}") from error
        if response.status_code != _OK:
            raise _refused(self._url, response.status_code, response.content)
        return response.text.split("\n") if response.text else []

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class WebSocketTransport:
    """One session over a WebSocket, opened by its first use, and again when it broke.

    Args:
        url: of the server's `/rpc`.
        headers: of the request that opens it.
        timeout_s: to open it.
        make: a session that sends by the function that it is given.

    Raises:
        ImportError: websockets is not installed.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout_s: float,
        make: Callable[[Callable[[str], bool], Callable[[], None]], Peer],
    ) -> None:
        try:
            from websockets.asyncio.client import connect  # optional
            from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
        except ImportError as error:
            raise ImportError(_EXTRA) from error
        self._url = url
        self._open: Callable[[], Any] = lambda: connect(
            url, additional_headers=dict(headers), open_timeout=timeout_s, max_size=None, close_timeout=_LONGEST_CLOSE_S
        )
        self._invalid_status = InvalidStatus
        self._errors = (WebSocketException, OSError)
        self._over = ConnectionClosed
        self._make = make
        self._peer: Peer | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def session(self) -> Peer:
        """The session, open.

        Raises:
            Unreachable, AccessDenied: it cannot be opened. Nothing was sent.
        """
        async with self._turn:
            if self._peer is None or self._peer.closed is not None:
                await self._stop()
                self._peer = await self._start()
            return self._peer

    async def _start(self) -> Peer:
        try:
            socket = await self._open()
        except self._invalid_status as error:
            raise _refused(self._url, error.response.status_code, bytes(error.response.body or b"")) from error
        except self._errors as error:
            raise Unreachable(f"{self._url} cannot be reached: {error or type(error).__name__}") from error
        waiting: asyncio.Queue[str | None] = asyncio.Queue()

        def send(text: str) -> bool:
            waiting.put_nowait(text)
            return True

        peer = self._make(send, lambda: waiting.put_nowait(None))
        self._carrying = asyncio.create_task(self._carry(socket, peer, waiting))
        return peer

    async def _carry(self, socket: Any, peer: Peer, waiting: asyncio.Queue[str | None]) -> None:
        writing = asyncio.create_task(_write(socket, waiting, self._over))
        try:
            async for message in socket:
                peer.receive(message if isinstance(message, str) else "")
        except self._over:
            pass  # said below, with the reason that the server gave
        finally:
            reason = socket.close_reason or socket.close_code or "no answer"
            peer.close(Unreachable(f"{self._url} closed the connection: {reason}"))
            await asyncio.wait([writing])
            await socket.close()
            await peer.settle()

    async def _stop(self) -> None:
        if self._carrying is not None:
            await asyncio.wait([self._carrying])
            self._carrying = None

    async def close(self) -> None:
        """End the session and close the connection."""
        async with self._turn:
            if self._peer is not None:
                self._peer.close(Unreachable("this end was closed"))
            await self._stop()


async def _write(socket: Any, waiting: asyncio.Queue[str | None], over: type[Exception]) -> None:
    try:
        while (text := await waiting.get()) is not None:
            await socket.send(text)
    except over:
        return
    await socket.close()


def _refused(url: str, status: int, body: bytes) -> LakebedError:
    try:
        said = msgspec.json.decode(body)["error"]
        code, message = str(said["code"]), str(said["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        code, message = f"HTTP_{status}", f"{url} answers {status}"
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return AccessDenied(message, hint="Show a key of the object", code=code, status=status)
    if status == _TOO_MANY:
        return Backpressure(message, hint="Send less, or later", code=code, status=status)
    return Unreachable(message, hint="Is this the address of a Lakebed server?", code=code, status=status)
