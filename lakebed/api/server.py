"""serve(): the app on a port, with limits, until a signal ends it. Without keys on a loopback address only.

HttpProtocol is uvicorn's HTTP over httptools, with limits that uvicorn lacks: on slow and large heads, on connections.
The logs of a server go to standard error, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ipaddress
import logging
import logging.config
import resource
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lakebed.api.errors import error_response
from lakebed.api.middleware import Exchange, HeldBytes, header
from lakebed.errors import InvalidSettings

__all__ = ["JsonFormatter", "configure_logs", "connection_class", "make_server", "serve"]


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the record's `facts`, a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure_logs(*, plain: bool = False, level: str = "INFO") -> None:
    """Send all logs of the server to standard error: as JSON, or as `plain` text."""
    formatter = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"} if plain else {"()": JsonFormatter}
    logger = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "loggers": {"uvicorn": logger, "lakebed": logger},
        }
    )


_CLOSING = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_SPARE = 64  # connections beyond the limit that still get a 503; further ones are closed at once


class HttpProtocol(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        head_timeout_s: seconds from the first byte of a request, or from connecting, to the end of its headers. Then
            the connection is closed: uvicorn itself would wait forever.
        max_head_bytes: limit of the request line and headers; more is answered 431. uvicorn itself has no limit.
        max_connections: limit of open connections; a further one is answered 503 and closed.
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
        """Start the timer for the first head, and limit the number of connections."""
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
        """Stop the timer: the head arrived in time."""
        self._stop_waiting()
        self._head_bytes = 0
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The write buffer is full: close the connection unless the client reads on within `stalled_s`."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The write buffer has drained: stop the timer, and let waiting writers continue."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop its timers."""
        self._stop_waiting()
        self._taken()
        super().connection_lost(exc)

    def _in_head(self) -> bool:
        """Whether the next bytes belong to a request that has not been passed to the app."""
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
    """A subclass of `HttpProtocol` with other limits, of which uvicorn makes the instances."""
    return type("HttpProtocol", (HttpProtocol,), limits)


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI app for connections beyond the limit: answers 503."""
    message = "Too many connections are open"
    refusal = error_response(503, "OVERLOADED", message, None, {"Retry-After": "1", "Connection": "close"})
    exchange = Exchange(scope, receive, send, HeldBytes(0), [])
    await refusal(scope, exchange.receive, exchange.send)


_GARBAGE = (20_000, 20, 50)
_DESCRIPTORS = 65_536
_MAX_CONNECTIONS = 10_000
_WEBSOCKET_BYTES = 4 << 20


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    drain_s: float = 10.0,
    plain_logs: bool = False,
    log_level: str = "INFO",
) -> None:
    """Serve `app` until SIGINT or SIGTERM. Blocks.

    On the signal the server accepts no further connection, answers requests under way, and closes what the app opened.
    Every event that was answered 200 is on disk, also if this process is killed instead.

    Args:
        app: the result of `create_app`.
        host: the address to listen on; without keys a loopback address.
        port: the port to listen on; 0 takes a free port.
        drain_s: seconds that requests under way may take; then their connections are closed.
        plain_logs: plain text instead of JSON, on standard error.
        log_level: the lowest level of the lines; "WARNING" leaves out the access log.

    Raises:
        InvalidSettings: `host` is not a loopback address, and the server has no keys.
    """
    server = make_server(app, host, port, timeout_graceful_shutdown=drain_s)
    configure_logs(plain=plain_logs, level=log_level)
    # Imported modules live as long as the process. Collecting garbage among them again and again took an eighth of the
    # time of single events, and blocked all of them for 50 ms once a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again after the shutdown
        server.run()


def make_server(app: ASGIApp, host: str = "127.0.0.1", port: int = 8080, **options: Any) -> uvicorn.Server:
    """The server that `serve` runs. Raises the errors of `serve`. `options` are uvicorn's and override ours."""
    keyless = _is_keyless(app)
    if keyless and not _is_loopback(host):
        raise InvalidSettings(
            f"a server without keys has no authentication and is served on loopback only, not on {host!r}",
            hint="Make a key first, or use 127.0.0.1, ::1 or localhost",
            host=host,
        )
    settings: dict[str, Any] = {
        "http": connection_class(max_connections=_connection_limit()),
        "loop": "uvloop",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,  # `lakebed.access` has more fields
        "server_header": False,
        "proxy_headers": False,  # uvicorn would trust any process of this machine; `Enrichment` has the trusted proxies
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": 10,
        "ws_max_size": _WEBSOCKET_BYTES,
    }
    config = uvicorn.Config(_LocalOnly(app) if keyless else app, host=host, port=port, **settings | options)
    return _Server(config, getattr(getattr(app, "state", None), "end_streams", None))


def _is_keyless(app: ASGIApp) -> bool:
    """Whether any request that reaches `app` may do everything. True also of an app that `create_app` did not make."""
    auth = getattr(getattr(app, "state", None), "auth", None)
    return auth is None or bool(auth.keyless)


def _connection_limit() -> int:
    """Half of the files that this process may open, up to a bound: the rest is for logs, databases and archives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return min(_MAX_CONNECTIONS, soft // 2 if soft != resource.RLIM_INFINITY else _MAX_CONNECTIONS)


class _Server(uvicorn.Server):
    """On shutdown, ends the streams that never end by themselves, before it waits for all connections."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._end_streams is not None:
            await self._end_streams()
        await super().shutdown(sockets)


class _LocalOnly:
    """Refuses requests that a browser sends for another site: their Host or Origin is not a loopback one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not _is_local(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # before accepting, this is a 403
                return
            message = "This server has no keys: it answers programs and pages of this machine only"
            exchange = Exchange(scope, receive, send, HeldBytes(0), [])
            await error_response(403, "NOT_LOCAL", message)(scope, exchange.receive, exchange.send)
            return
        await self._app(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    origin = header(scope, b"origin")
    return _is_local_url("//" + header(scope, b"host")) and (not origin or _is_local_url(origin))


@functools.lru_cache(1024)  # called for each request, nearly always with the same host
def _is_local_url(url: str) -> bool:
    try:
        return _is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
