"""serve(): the app on a port, with limits, until a signal ends it. Without keys on a loopback address only."""

from __future__ import annotations

import contextlib
import functools
import gc
import ipaddress
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from lakebed.api.errors import error_response
from lakebed.api.http_protocol import connection_class
from lakebed.api.logs import configure_logs
from lakebed.api.middleware import Exchange, HeldBytes, header
from lakebed.errors import InvalidSettings

__all__ = ["make_server", "serve"]

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
        host: an address; without keys a loopback one.
        port: 0 takes a free one.
        drain_s: seconds for requests under way; then their connections are closed.
        plain_logs: plain text instead of JSON, on standard error.
        log_level: of all lines; "WARNING" leaves out the access log.

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
    """The server that `serve` runs, with the same errors. `options` are uvicorn's and override ours."""
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
    """Whether any request that reaches `app` may do everything. Also assumed of an app that is not ours."""
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
    """Refuses requests that a browser sends for another site: a foreign name of this machine, or a foreign page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not _is_local(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
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
