"""Records of each request: RequestMetrics counts and times it, log_exchange writes a line of the access log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from lakebed.api.middleware import Exchange
from lakebed.histogram import SECONDS, Histogram

__all__ = ["RequestMetrics", "log_exchange"]

_log = logging.getLogger("lakebed.access")
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
        method, route = exchange.scope["method"], _route_of(exchange)
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


def log_exchange(exchange: Exchange, seconds: float) -> None:
    """A line on the logger `lakebed.access`: the request and its outcome. No key, body or query string.

    The record's `facts` are `method`, `route`, `status`, `ms`, `bytes_in`, `bytes_out`, and `object`
    and `key` (its id) if the request was admitted.
    """
    if not _log.isEnabledFor(logging.INFO):
        return
    scope = exchange.scope
    caller = scope.get("lakebed.caller")
    facts: dict[str, Any] = {
        "method": scope["method"],
        "route": _route_of(exchange),
        "status": exchange.status,
        "ms": round(seconds * 1000, 2),
        "bytes_in": exchange.received_bytes,
        "bytes_out": exchange.sent_bytes,
    }
    if caller is not None:
        facts |= {"object": caller.object, "key": caller.key}
    text = "%s %s %d %.1f ms"
    _log.info(text, facts["method"], facts["route"], facts["status"], facts["ms"], extra={"facts": facts})


def _route_of(exchange: Exchange) -> str:
    """The path of the route, with placeholders: their number is bounded, whatever clients send."""
    return getattr(exchange.scope.get("route"), "path", None) or "none"
