"""serve(): the app on a loopback address, and nowhere else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lakebed.api.errors import error_response
from lakebed.errors import InvalidSettings

__all__ = ["make_server", "serve"]


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve `app` until it is stopped by SIGINT or SIGTERM. Blocks.

    Raises:
        InvalidSettings: `host` is not a loopback address: the app has no authentication yet.
    """
    make_server(app, host, port).run()


def make_server(app: ASGIApp, host: str = "127.0.0.1", port: int = 8080, **options: Any) -> uvicorn.Server:
    """The server that `serve` runs; port 0 takes a free one. Raises what `serve` raises."""
    if not _is_loopback(host):
        raise InvalidSettings(
            f"the app has no authentication yet and is served on loopback only, not on {host!r}",
            hint="Use 127.0.0.1, ::1 or localhost; put a proxy that authenticates before it to reach it from elsewhere",
            host=host,
        )
    limits: dict[str, Any] = {"limit_concurrency": 1000, "timeout_graceful_shutdown": 10, "server_header": False}
    config = uvicorn.Config(_LocalOnly(app), host=host, port=port, **limits | options)
    return _Server(config, getattr(getattr(app, "state", None), "end_streams", None))


class _Server(uvicorn.Server):
    """Ends streams that would never end when it stops, before it waits for all connections."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._end_streams is not None:
            await self._end_streams()
        await super().shutdown(sockets)


class _LocalOnly:
    """Refuses what a browser sends for another site: a name that was pointed at this machine, or a foreign page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not _is_local_url("//" + headers.get("host", "")) or (origin and not _is_local_url(origin)):
                message = "This server answers programs of this machine only"
                await error_response(403, "NOT_LOCAL", message)(scope, receive, send)
                return
        await self._app(scope, receive, send)


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
