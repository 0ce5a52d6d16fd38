"""create_app(): the rooms of the front door in one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from lakebed.api.body import Body
from lakebed.api.cors import Cors
from lakebed.api.errors import error_handlers
from lakebed.api.exchanges import Exchanges
from lakebed.api.gate import Gate
from lakebed.api.ingest import Ingest
from lakebed.api.logs import log_exchange
from lakebed.api.openapi import OpenApi
from lakebed.api.reads import Reads
from lakebed.clock import SystemClock

__all__ = ["create_app"]


def create_app(
    target: Any,
    *,
    max_body_bytes: int = 5 << 20,
    body_timeout_s: float = 10.0,
    max_waiting: int = 1000,
    max_held_bytes: int = 256 << 20,
) -> Starlette:
    """An ASGI app over an `Analytics` object or a `Namespace`.

    Args:
        target: if it is not open when the app starts, the app opens it, and closes it when it stops.
        max_body_bytes: a larger body, as sent or as inflated, is 413.
        body_timeout_s: a body that takes longer to arrive is 408.
        max_waiting: requests that may wait for their answer at once; one more is 503.
        max_held_bytes: of the bodies of those.

    With a namespace, the header `X-Lakebed-Object` or the query's `object` names the object, by default "default".
    Writing makes an object that does not exist; reading it is 404.

    Mounted in another app its lifespan does not run: open `target` in that app's own. `app.state.gate` is its `Gate`.
    """
    gate = Gate(target)
    body = Body(max_body_bytes, body_timeout_s)
    clock = SystemClock()
    rooms = (Ingest(gate, body), Reads(gate))
    routes = [route for room in rooms for route in room.routes()]
    routes += OpenApi(routes).routes()
    around = Middleware(
        Exchanges,
        cors=Cors(routes),
        clock=clock,
        max_waiting=max_waiting,
        max_held_bytes=max_held_bytes,
        watchers=[log_exchange],
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if target.is_open:
            yield
            return
        async with target:
            yield

    app = Starlette(routes=routes, middleware=[around], exception_handlers=error_handlers, lifespan=lifespan)
    app.state.gate = gate
    return app
