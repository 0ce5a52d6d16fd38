"""Metrics: what Prometheus asks for."""

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
from lakebed.api.openapi.operation import operation
from lakebed.api.request_metrics import RequestMetrics
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

    All numbers are sums over the objects that this process served since it began: there is no label for an object, so
    there are only so many series. While there are no keys, everybody whom the server answers may ask. With keys, the
    sums are for who shows the metrics token: they tell of all objects. A read key gets those of its own object.

    Args:
        auth: knows the target.
        traffic: what passed through the app.
        token: the metrics token; None, there is none.
    """

    def __init__(self, auth: Auth, traffic: RequestMetrics, token: str | None = None) -> None:
        self._auth = auth
        self._traffic = traffic
        self._token = token or None  # an empty one would let everybody in
        self._asleep = LifetimeCounts()  # of objects that are no longer awake
        if isinstance(auth.target, Namespace):
            auth.target.residents.watchers.append(self._keep)

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [Route("/metrics", self.metrics, methods=["GET"])]

    @operation(scope="read", answer={_TEXT: str})
    async def metrics(self, request: Request) -> Response:
        """Counters, gauges and histograms in Prometheus' text format, or OpenMetrics where that is asked for.

        With keys: the metrics token as `Authorization: Bearer` gives all numbers, a read key those of its own object.
        """
        registry = CollectorRegistry(auto_describe=False)
        if self._auth.keyless or self._is_token(request):
            target = self._auth.target
            objects = list(target.residents) if isinstance(target, Namespace) else [target]
            families = [*await self._of(objects, self._asleep), *self._of_process()]
            families.append(_gauge("lakebed_objects_awake", "Objects that are open in this process", len(objects)))
            free = await run_in_thread("metrics", lambda: Disk().free_bytes(target.root))
            families.append(_gauge("lakebed_disk_free_bytes", "What may still be written", free))
        else:
            families = await self._of([self._auth.existing(self._auth.admit(request, "read"))], LifetimeCounts())
        registry.register(_Ready(families))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    def _is_token(self, request: Request) -> bool:
        shown = request.headers.get("authorization", "")
        return self._token is not None and hmac.compare_digest(shown.encode(), f"Bearer {self._token}".encode())

    def _keep(self, slept: Any) -> None:
        if hasattr(slept, "tally"):
            self._asleep.add(slept.tally())

    async def _of(self, objects: Iterable[Any], before: LifetimeCounts) -> list[Metric]:
        tally = LifetimeCounts()
        tally.add(before)
        found: list[Health] = []
        for one in objects:
            if not hasattr(one, "tally"):
                continue
            counted = one.tally()
            tally.add(await counted if inspect.isawaitable(counted) else counted)
            try:
                found.append(await one.vitals())
            except LakebedError:  # it goes to sleep, or its storage fails, which its own calls say
                continue
        return [*_events(tally), *_gauges(found)]

    def _of_process(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "lakebed_http_requests", "Requests that were answered", labels=["method", "route", "status"]
        )
        for method, route, status, count in self._traffic.statuses():
            requests.add_metric([method, route, str(status)], count)
        seconds = HistogramMetricFamily(
            "lakebed_http_request_seconds", "From a request to the end of its answer", labels=["route"]
        )
        for route, histogram in self._traffic.seconds():
            seconds.add_metric([route], histogram.cumulated(), histogram.total)
        yield requests
        yield seconds
        yield CounterMetricFamily("lakebed_http_received_bytes", "Of bodies", self._traffic.received_bytes)
        yield CounterMetricFamily("lakebed_http_sent_bytes", "Of bodies", self._traffic.sent_bytes)


class _Ready:
    """A collector of what was collected already: some of it had to be awaited."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _events(tally: LifetimeCounts) -> Iterator[Metric]:
    received = tally.stored + tally.duplicate + tally.rejected
    yield CounterMetricFamily("lakebed_events_received", "Events that were answered", received)
    by_status = CounterMetricFamily("lakebed_events", "The same by what became of them", labels=["status"])
    for status in ("stored", "duplicate", "rejected"):
        by_status.add_metric([status], getattr(tally, status))
    yield by_status
    yield CounterMetricFamily("lakebed_events_failed", "Events that the log could not take", tally.failed)
    yield _histogram("lakebed_commit_group_events", "Events of each group that was committed", tally.groups)
    yield _histogram("lakebed_commit_sync_seconds", "Making a group durable", tally.syncs)
    yield _histogram("lakebed_query_seconds", "Questions in SQL, and those of metrics", tally.queries)


def _gauges(found: list[Health]) -> Iterator[Metric]:
    yield _gauge("lakebed_events_pending", "Events that wait for their commit", sum(one.pending for one in found))
    lag = GaugeMetricFamily(
        "lakebed_consumer_lag_events", "Events that a consumer has yet to read", labels=["consumer"]
    )
    behind: Counter[str] = Counter()
    for one in found:
        behind.update(one.lag)
    for consumer, events in sorted(behind.items()):
        lag.add_metric([consumer], events)
    yield lag
    yield _gauge("lakebed_log_bytes", "Sealed log files", sum(one.log_bytes for one in found))
    yield _gauge("lakebed_tail_bytes", "Events in memory that are not sealed", sum(one.tail_bytes for one in found))
    yield _gauge("lakebed_dead_letters", "Refused events that wait", sum(one.dead_letters for one in found))
    yield _gauge("lakebed_problems", "What failed and has not succeeded since", sum(one.problems for one in found))


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value)


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, about, histogram.cumulated(), histogram.total)
