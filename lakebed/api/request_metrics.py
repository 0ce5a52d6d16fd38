"""Traffic: how many requests each route answered, with which status, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator

from lakebed.api.access_log import route_of
from lakebed.api.middleware import Exchange
from lakebed.histogram import SECONDS, Histogram

__all__ = ["RequestMetrics"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetrics:
    """Counts exchanges. There are as many numbers as routes, methods and statuses, whatever clients send.

    Attributes:
        received_bytes, sent_bytes: of bodies.
    """

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self._statuses: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, Histogram] = {}

    def watch(self, exchange: Exchange, seconds: float) -> None:
        """Count one."""
        method, route = exchange.scope["method"], route_of(exchange)
        key = (method if method in _METHODS else "other", route, exchange.status)
        self._statuses[key] = self._statuses.get(key, 0) + 1
        found = self._seconds.get(route)
        if found is None:
            found = self._seconds[route] = Histogram(SECONDS)
        found.observe(seconds)
        self.received_bytes += exchange.received_bytes
        self.sent_bytes += exchange.sent_bytes

    def statuses(self) -> Iterator[tuple[str, str, int, int]]:
        """Method, route, status, how many."""
        for (method, route, status), count in self._statuses.items():
            yield method, route, status, count

    def seconds(self) -> Iterator[tuple[str, Histogram]]:
        """Route, and how long its answers took to their end."""
        yield from self._seconds.items()
