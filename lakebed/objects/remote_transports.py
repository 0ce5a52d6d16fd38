"""Carry calls to a server by Cap'n Web, over HTTP or WebSocket. They need `pip install 'lakebed[client]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lakebed.errors import AccessDenied, Backpressure, LakebedError, Unreachable
from lakebed.rpc.capnweb.results import Outcome, PendingResult
from lakebed.rpc.capnweb.session import Peer

__all__ = ["FAITHFUL", "HttpTransport", "WebSocketTransport"]

FAITHFUL = "X-Lakebed-Faithful"
"""The header by which a Lakebed client requests complete values: microseconds, decimals, whole results."""

_OK, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 200, 401, 403, 429
_EXTRA = "connecting to a server needs httpx and websockets: pip install 'lakebed[client]'"
_CLOSE_TIMEOUT_S = 5.0

Push = Callable[[Peer], Sequence[PendingResult]]
"""Pushes calls in a session; returns the peer's answers to them."""
MakePeer = Callable[..., Peer]
"""Makes a session: takes the function that sends a message, and the one to call when the session has ended."""


class HttpTransport:
    """Carries each trip in an HTTP request and a session of its own.

    Args:
        url: address of the server's `/rpc`.
        headers: headers of each request.
        timeout_s: seconds for a request.
        make_peer: makes a session.

    Raises:
        ImportError: httpx is not installed.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, make_peer: MakePeer) -> None:
        try:
            import httpx  # optional
        except ImportError as error:
            raise ImportError(_EXTRA) from error
        self._url = url
        self._make_peer = make_peer
        self._error = httpx.HTTPError
        self._client = httpx.AsyncClient(headers=dict(headers), timeout=timeout_s, follow_redirects=False)

    async def carry(self, push: Push, _results: Sequence[PendingResult]) -> list[Outcome]:
        """Make the calls that `push` pushes to a peer. Returns the calls' outcomes.

        Raises:
            Unreachable: there is no answer, or none in RPC's form. The server may have carried out the calls.
            AccessDenied, Backpressure: the server refused the request with this error.
        """
        messages: list[str] = []

        def send(message: str) -> bool:
            messages.append(message)
            return True

        peer = self._make_peer(send)
        answers = push(peer)
        try:
            for text in await self._exchange(messages):
                peer.receive(text)
        except LakebedError as error:
            for answer in answers:
                answer.resolve(Outcome(error=error))  # before the end of the session, whose error says less
            raise
        finally:
            peer.close(peer.closed or Unreachable("the server did not answer this call"))
        return [await answer.wait() for answer in answers]

    async def _exchange(self, messages: Sequence[str]) -> list[str]:
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
    """Carries all trips in one session over a WebSocket. Connects at the first trip, and again after a break.

    Args:
        url: address of the server's `/rpc`.
        headers: headers of the request that opens the connection.
        timeout_s: seconds for a trip, and for opening the connection.
        make_peer: makes a session.

    Raises:
        ImportError: websockets is not installed.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, make_peer: MakePeer) -> None:
        try:
            from websockets.asyncio.client import connect  # optional
            from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
        except ImportError as error:
            raise ImportError(_EXTRA) from error
        self._url = url
        self._open: Callable[[], Any] = lambda: connect(
            url, additional_headers=dict(headers), open_timeout=timeout_s, max_size=None, close_timeout=_CLOSE_TIMEOUT_S
        )
        self._invalid_status = InvalidStatus
        self._errors = (WebSocketException, OSError)
        self._connection_closed = ConnectionClosed
        self._make_peer = make_peer
        self._timeout_s = timeout_s
        self._peer: Peer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # one open or close at a time

    async def carry(self, push: Push, results: Sequence[PendingResult]) -> list[Outcome]:
        """Make the calls that `push` pushes to a peer. Each of `results` is resolved as soon as its answer arrives.

        Raises:
            Unreachable, AccessDenied: the connection cannot be opened. Nothing was sent.
            TimeoutError: a call took longer than `timeout_s`. The server may have carried it out.
        """
        answers = push(await self._session())
        for answer, result in zip(answers, results, strict=True):
            answer.then(result.resolve)
        async with asyncio.timeout(self._timeout_s):
            return [await answer.wait() for answer in answers]

    async def _session(self) -> Peer:
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
        outgoing: asyncio.Queue[str | None] = asyncio.Queue()

        def send(text: str) -> bool:
            outgoing.put_nowait(text)
            return True

        peer = self._make_peer(send, lambda: outgoing.put_nowait(None))
        self._reading = asyncio.create_task(self._read(socket, peer, outgoing))
        return peer

    async def _read(self, socket: Any, peer: Peer, outgoing: asyncio.Queue[str | None]) -> None:
        writing = asyncio.create_task(_write(socket, outgoing, self._connection_closed))
        try:
            async for message in socket:
                peer.receive(message if isinstance(message, str) else "")
        except self._connection_closed:
            pass  # reported below, with the server's reason
        finally:
            reason = socket.close_reason or socket.close_code or "no answer"
            peer.close(Unreachable(f"{self._url} closed the connection: {reason}"))
            await asyncio.wait([writing])
            await socket.close()
            await peer.settle()

    async def _stop(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])
            self._reading = None

    async def close(self) -> None:
        """End the session and close the connection."""
        async with self._turn:
            if self._peer is not None:
                self._peer.close(Unreachable("this end was closed"))
            await self._stop()


async def _write(socket: Any, outgoing: asyncio.Queue[str | None], connection_closed: type[Exception]) -> None:
    try:
        while (text := await outgoing.get()) is not None:
            await socket.send(text)
    except connection_closed:
        return
    await socket.close()


def _refused(url: str, status: int, body: bytes) -> LakebedError:
    try:
        error = msgspec.json.decode(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        code, message = f"HTTP_{status}", f"{url} answers {status}"
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return AccessDenied(message, hint="Use a key of the object", code=code, status=status)
    if status == _TOO_MANY:
        return Backpressure(message, hint="Send less, or later", code=code, status=status)
    return Unreachable(message, hint="Is this the address of a Lakebed server?", code=code, status=status)
