"""create_app(): all routes in one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from lakebed.api.auth import DEFAULT_LIMITS, Auth
from lakebed.api.body import Body
from lakebed.api.cors import Cors
from lakebed.api.enrichment.enrichment import Enrichment
from lakebed.api.errors import error_handlers
from lakebed.api.middleware import ExchangeMiddleware, RequestMetrics, log_exchange
from lakebed.api.openapi.document import OpenApi
from lakebed.api.openapi.page import Reference
from lakebed.api.routes.analytics_engine import AnalyticsEngineRoutes
from lakebed.api.routes.billing import BillingRoutes
from lakebed.api.routes.dead_letters import DeadLetterRoutes
from lakebed.api.routes.events import EventRequests, EventRoutes, MicroBatching, TrackRoutes
from lakebed.api.routes.grafana import GrafanaRoutes
from lakebed.api.routes.health import HealthRoutes
from lakebed.api.routes.metrics import MetricRoutes
from lakebed.api.routes.page import PageRoutes
from lakebed.api.routes.people import CohortRoutes, PeopleRoutes
from lakebed.api.routes.prometheus import PrometheusRoutes
from lakebed.api.routes.query import PlatformRoutes, QueryRoutes, ReportRoutes, TemplateRoutes
from lakebed.api.routes.segment import MAX_BATCH_BYTES, SegmentRoutes
from lakebed.api.rpc.endpoint import RpcEndpoint
from lakebed.api.streams.live import LiveStream
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
        target: the object or namespace. Unless it is open already, the app opens it on startup, and closes it on exit.
        max_body_bytes: limit of a body, both as sent and decompressed; a larger body is refused with 413.
        max_batch_bytes: limit of a decompressed body under /v1/; a larger body is refused with 400.
        body_timeout_s: seconds within which a body must arrive; a slower body is refused with 408.
        max_waiting: requests that may wait for their response at once; a further request is refused with 503.
        max_held_bytes: bytes that the bodies of the waiting requests may have together; beyond these, 503.
        limits: limits of a key that has none of its own; None in a field means the default.
        clock: the clock for rates, rotated keys and request times.
        metrics_token: sent as `Authorization: Bearer`, it gives access to all of /metrics, which covers every object.
        enrichment: the fields to add to the context of events from browsers and phones; by default not the location.

    The key of a request selects the object. Until the first key is made in the root of `target`, any request may do
    everything with one object: `target`, or "default" of a namespace. Writing creates an object that does not exist;
    reading such an object is refused with 404.

    If the app is mounted in another one, its lifespan does not run: open `target` in the lifespan of that app.
    `app.state.auth` is its `Auth`.
    """
    clock = clock if clock is not None else SystemClock()
    auth = Auth(target, clock, limits)
    body = Body(max_body_bytes, body_timeout_s)
    micro_batching = MicroBatching(auth)
    event_requests = EventRequests(auth, body, micro_batching)
    request_metrics = RequestMetrics()
    live = LiveStream(auth, clock)
    rpc = RpcEndpoint(auth, body)
    route_groups = (
        SegmentRoutes(auth, body, micro_batching, enrichment or Enrichment(), max_batch_bytes=max_batch_bytes),
        TrackRoutes(event_requests),
        EventRoutes(event_requests),
        MetricRoutes(auth),
        QueryRoutes(auth, body),
        ReportRoutes(auth, body),
        PlatformRoutes(auth, body),
        TemplateRoutes(auth, body),
        CohortRoutes(auth, body),
        BillingRoutes(auth, body),
        AnalyticsEngineRoutes(auth, body),
        GrafanaRoutes(auth, body),
        PeopleRoutes(auth, body),
        DeadLetterRoutes(auth, body),
        live,
        HealthRoutes(auth, clock, Disk()),
        PrometheusRoutes(auth, request_metrics, metrics_token),
        rpc,
        PageRoutes(auth),
    )
    routes = [route for group in route_groups for route in group.routes()]
    openapi = OpenApi(routes)
    routes += [*openapi.routes(), *Reference(openapi).routes()]
    exchange_middleware = Middleware(
        ExchangeMiddleware,
        routes=routes,
        cors=Cors(routes),
        clock=clock,
        max_waiting=max_waiting,
        max_held_bytes=max_held_bytes,
        watchers=[request_metrics.watch, log_exchange],
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

    app = Starlette(
        routes=routes, middleware=[exchange_middleware], exception_handlers=error_handlers, lifespan=lifespan
    )
    app.state.auth = auth
    app.state.end_streams = end_streams  # the server calls it on shutdown: the lifespan ends too late
    return app
