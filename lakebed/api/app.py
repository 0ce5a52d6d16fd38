"""create_app(): the rooms of the front door in one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from lakebed.api.access_log import log_exchange
from lakebed.api.auth import Auth
from lakebed.api.body import Body
from lakebed.api.cors import Cors
from lakebed.api.enrichment.enrichment import Enrichment
from lakebed.api.errors import error_handlers
from lakebed.api.middleware import Exchanges
from lakebed.api.openapi.document import OpenApi
from lakebed.api.openapi.page import Reference
from lakebed.api.rate_limits import DEFAULT_LIMITS
from lakebed.api.request_metrics import RequestMetrics
from lakebed.api.routes.analytics_engine import Datasets
from lakebed.api.routes.billing import Billing
from lakebed.api.routes.cohorts import Cohorts
from lakebed.api.routes.dead_letters import Letters
from lakebed.api.routes.events import Events
from lakebed.api.routes.grafana import Grafana
from lakebed.api.routes.health import Health
from lakebed.api.routes.metrics import Reads
from lakebed.api.routes.micro_batching import Gathering
from lakebed.api.routes.page import Page
from lakebed.api.routes.people import People
from lakebed.api.routes.platform import Platform
from lakebed.api.routes.prometheus import Metrics
from lakebed.api.routes.query import Sql
from lakebed.api.routes.reports import Reports
from lakebed.api.routes.segment import MAX_BATCH_BYTES, Segment
from lakebed.api.routes.templates import Templates
from lakebed.api.routes.track import Ingest
from lakebed.api.rpc.endpoint import RpcEndpoint
from lakebed.api.streams.live import Live
from lakebed.auth.keys import Limits
from lakebed.clock import Clock, SystemClock
from lakebed.disk import Disk

__all__ = ["create_app"]


def create_app(
    target: Any,
    *,
    max_body_bytes: int = 5 << 20,
    max_batch_bytes: int = MAX_BATCH_BYTES,
    body_timeout_s: float = 10.0,
    max_waiting: int = 1000,
    max_held_bytes: int = 256 << 20,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock | None = None,
    metrics_token: str | None = None,
    enrichment: Enrichment | None = None,
) -> Starlette:
    """An ASGI app over an `Analytics` object or a `Namespace`.

    Args:
        target: if it is not open when the app starts, the app opens it, and closes it when it stops.
        max_body_bytes: a larger body, as sent or as inflated, is 413.
        max_batch_bytes: a larger one under /v1/, inflated, is 400.
        body_timeout_s: a body that takes longer to arrive is 408.
        max_waiting: requests that may wait for their answer at once; one more is 503.
        max_held_bytes: of the bodies of those.
        limits: what a key may send that has no limits of its own; a field that is None is the default's.
        clock: for rates, for what a rotation replaced, and for how long a request took.
        metrics_token: who shows it as `Authorization: Bearer` may read all of /metrics, which tells of every object.
        enrichment: what is added to the context of events from browsers and phones; by default all but the place.

    A request's key says which object it is for. While no key was ever made in the root of `target`, everybody may do
    everything with one object: `target`, or "default" of a namespace. Writing makes an object that does not exist;
    reading it is 404.

    Mounted in another app its lifespan does not run: open `target` in that app's own. `app.state.gate` is its `Auth`.
    """
    clock = clock if clock is not None else SystemClock()
    gate = Auth(target, clock, limits)
    body = Body(max_body_bytes, body_timeout_s)
    gathering = Gathering(gate)
    traffic = RequestMetrics()
    live = Live(gate, clock)
    rpc = RpcEndpoint(gate, body)
    rooms = (
        Segment(gate, body, gathering, enrichment or Enrichment(), max_batch_bytes=max_batch_bytes),
        Ingest(gate, body, gathering),
        Events(gate, body, gathering),
        Reads(gate),
        Sql(gate, body),
        Reports(gate, body),
        Platform(gate, body),
        Templates(gate, body),
        Cohorts(gate, body),
        Billing(gate, body),
        Datasets(gate, body),
        Grafana(gate, body),
        People(gate, body),
        Letters(gate, body),
        live,
        Health(gate, clock, Disk()),
        Metrics(gate, traffic, metrics_token),
        rpc,
        Page(gate),
    )
    routes = [route for room in rooms for route in room.routes()]
    openapi = OpenApi(routes)
    routes += [*openapi.routes(), *Reference(openapi).routes()]
    around = Middleware(
        Exchanges,
        routes=routes,
        cors=Cors(routes),
        clock=clock,
        max_waiting=max_waiting,
        max_held_bytes=max_held_bytes,
        watchers=[traffic.watch, log_exchange],
    )

    async def end_streams() -> None:
        await live.close()
        await rpc.close()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if not target.is_open:
                await stack.enter_async_context(target)
            live.open()
            stack.push_async_callback(end_streams)
            yield

    app = Starlette(routes=routes, middleware=[around], exception_handlers=error_handlers, lifespan=lifespan)
    app.state.gate = gate
    app.state.end_streams = end_streams  # by whoever stops the server: the lifespan ends after the last connection
    return app
