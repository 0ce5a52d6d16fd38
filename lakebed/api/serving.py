"""serve(): the app on a loopback address, and nowhere else."""

from __future__ import annotations

import ipaddress
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
    return uvicorn.Server(uvicorn.Config(_LocalOnly(app), host=host, port=port, **limits | options))


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
