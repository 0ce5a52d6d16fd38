"""create_app(): the rooms of the front door in one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from lakebed.api.body import Body
from lakebed.api.errors import error_handlers
from lakebed.api.gate import Gate
from lakebed.api.ingest import Ingest
from lakebed.api.openapi import OpenApi
from lakebed.api.reads import Reads
from lakebed.api.rpc import Rpc

__all__ = ["create_app"]


def create_app(target: Any, *, max_body_bytes: int = 1 << 20, body_timeout_s: float = 10.0) -> Starlette:
    """An ASGI app over an `Analytics` object or a `Namespace`. It has no authentication.

    Args:
        target: if it is not open when the app starts, the app opens it, and closes it when it stops.
        max_body_bytes: a larger body is 413.
        body_timeout_s: a body that takes longer to arrive is 408.

    With a namespace, the header `X-Lakebed-Object` or the query's `object` names the object, by default "default".
    Writing makes an object that does not exist; reading it is 404.

    Mounted in another app its lifespan does not run: open `target` in that app's own.
    """
    gate = Gate(target)
    body = Body(max_body_bytes, body_timeout_s)
    rooms = (Ingest(gate, body), Reads(gate), Rpc(gate, body))
    routes = [route for room in rooms for route in room.routes()]
    routes += OpenApi(routes).routes()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if target.is_open:
            yield
            return
        async with target:
            yield

    return Starlette(routes=routes, exception_handlers=error_handlers, lifespan=lifespan)
