"""RequestMetrics: the number of requests by route and status, and their duration."""

from __future__ import annotations

from collections.abc import Iterator

from lakebed.api.access_log import route_of
from lakebed.api.middleware import Exchange
from lakebed.histogram import SECONDS, Histogram

__all__ = ["RequestMetrics"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts exchanges. The number of counters is bounded by routes, methods and statuses, whatever clients send.

    Attributes:
        received_bytes, sent_bytes: of bodies.
    """

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self._statuses: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def watch(self, exchange: Exchange, seconds: float) -> None:
        """Count one exchange."""
        method, route = exchange.scope["method"], route_of(exchange)
        key = (method if method in _METHODS else "other", route, exchange.status)
        self._statuses[key] = self._statuses.get(key, 0) + 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = Histogram(SECONDS)
        histogram.observe(seconds)
        self.received_bytes += exchange.received_bytes
        self.sent_bytes += exchange.sent_bytes

    def statuses(self) -> Iterator[tuple[str, str, int, int]]:
        """Tuples of method, route, status and count."""
        for (method, route, status), count in self._statuses.items():
            yield method, route, status, count

    def seconds(self) -> Iterator[tuple[str, Histogram]]:
        """Tuples of route and histogram of durations, each to the end of the response."""
        yield from self._seconds.items()
