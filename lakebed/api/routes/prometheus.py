"""PrometheusRoutes: metrics in the text format of Prometheus."""

from __future__ import annotations

import hmac
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.middleware import RequestMetrics
from lakebed.api.openapi.document import operation
from lakebed.concurrency import run_in_thread
from lakebed.disk import Disk
from lakebed.errors import LakebedError
from lakebed.histogram import Histogram
from lakebed.monitoring.health import Health, LifetimeCounts
from lakebed.objects.namespace import Namespace

__all__ = ["PrometheusRoutes"]

_TEXT = "text/plain"


class PrometheusRoutes:
    """`GET /metrics`.

    All numbers are sums over the objects that this process has served: no label names an object, so the number of
    series is bounded. Without keys, any client may read them. With keys, the sums over all objects need the metrics
    token; a read key gives the numbers of its own object.

    Args:
        auth: gives the target, and checks keys.
        request_metrics: counts of the app's requests.
        token: the metrics token, or None.
    """

    def __init__(self, auth: Auth, request_metrics: RequestMetrics, token: str | None = None) -> None:
        self._auth = auth
        self._request_metrics = request_metrics
        self._token = token or None  # an empty token would admit any client
        self._asleep = LifetimeCounts()  # the counts of objects that have been closed since
        if isinstance(auth.target, Namespace):
            auth.target.pool.watchers.append(self._keep)

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [Route("/metrics", self.metrics, methods=["GET"])]

    @operation(scope="read", answer={_TEXT: str})
    async def metrics(self, request: Request) -> Response:
        """Counters, gauges and histograms in Prometheus' text format, or OpenMetrics if the Accept header names it.

        With keys: the metrics token as `Authorization: Bearer` gives all numbers, a read key those of its own object.
        """
        registry = CollectorRegistry(auto_describe=False)
        if self._auth.keyless or self._is_token(request):
            target = self._auth.target
            objects = list(target.pool) if isinstance(target, Namespace) else [target]
            families = [*await self._of(objects, self._asleep), *self._of_process()]
            families.append(_gauge("lakebed_objects_awake", "Objects that are open in this process", len(objects)))
            free = await run_in_thread("metrics", lambda: Disk().free_bytes(target.root))
            families.append(_gauge("lakebed_disk_free_bytes", "Free bytes of the disk", free))
        else:
            families = await self._of([self._auth.existing(self._auth.admit(request, "read"))], LifetimeCounts())
        registry.register(_Ready(families))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    def _is_token(self, request: Request) -> bool:
        header = request.headers.get("authorization", "")
        return self._token is not None and hmac.compare_digest(header.encode(), f"Bearer {self._token}".encode())

    def _keep(self, closed: Any) -> None:
        if hasattr(closed, "tally"):
            self._asleep.add(closed.tally())

    async def _of(self, objects: Iterable[Any], before: LifetimeCounts) -> list[Metric]:
        counts = LifetimeCounts()
        counts.add(before)
        healths: list[Health] = []
        for instance in objects:
            if not hasattr(instance, "tally"):
                continue
            own_counts = instance.tally()
            counts.add(await own_counts if inspect.isawaitable(own_counts) else own_counts)
            try:
                healths.append(await instance.vitals())
            except LakebedError:  # the object is closing, or its storage fails, which its own calls report
                continue
        return [*_events(counts), *_gauges(healths)]

    def _of_process(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "lakebed_http_requests", "Answered requests", labels=["method", "route", "status"]
        )
        for method, route, status, count in self._request_metrics.statuses():
            requests.add_metric([method, route, str(status)], count)
        seconds = HistogramMetricFamily(
            "lakebed_http_request_seconds", "From a request to the end of its response", labels=["route"]
        )
        for route, histogram in self._request_metrics.seconds():
            seconds.add_metric([route], histogram.cumulative(), histogram.total)
        yield requests
        yield seconds
        yield CounterMetricFamily("lakebed_http_received_bytes", "Of bodies", self._request_metrics.received_bytes)
        yield CounterMetricFamily("lakebed_http_sent_bytes", "Of bodies", self._request_metrics.sent_bytes)


class _Ready:
    """A collector that returns families collected earlier, because some of them had to be awaited."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _events(counts: LifetimeCounts) -> Iterator[Metric]:
    received = counts.stored + counts.duplicate + counts.rejected
    yield CounterMetricFamily("lakebed_events_received", "Events received", received)
    by_status = CounterMetricFamily("lakebed_events", "Events received, by outcome", labels=["status"])
    for status in ("stored", "duplicate", "rejected"):
        by_status.add_metric([status], getattr(counts, status))
    yield by_status
    yield CounterMetricFamily("lakebed_events_failed", "Events that the log could not store", counts.failed)
    yield _histogram("lakebed_commit_group_events", "Events of each committed group", counts.groups)
    yield _histogram("lakebed_commit_sync_seconds", "Duration of making a group durable", counts.syncs)
    yield _histogram("lakebed_query_seconds", "Duration of queries", counts.queries)


def _gauges(healths: list[Health]) -> Iterator[Metric]:
    yield _gauge("lakebed_events_pending", "Events that wait for a commit", sum(health.pending for health in healths))
    lag = GaugeMetricFamily(
        "lakebed_consumer_lag_events", "Events that a consumer has not read yet", labels=["consumer"]
    )
    behind: Counter[str] = Counter()
    for health in healths:
        behind.update(health.lag)
    for consumer, events in sorted(behind.items()):
        lag.add_metric([consumer], events)
    yield lag
    yield _gauge("lakebed_log_bytes", "Sealed log files", sum(health.log_bytes for health in healths))
    yield _gauge("lakebed_tail_bytes", "Unsealed events in memory", sum(health.tail_bytes for health in healths))
    yield _gauge("lakebed_dead_letters", "Dead letters", sum(health.dead_letters for health in healths))
    yield _gauge("lakebed_problems", "Failures without a success since", sum(health.problems for health in healths))


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value)


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, about, histogram.cumulative(), histogram.total)
