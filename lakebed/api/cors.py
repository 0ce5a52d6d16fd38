"""Cors: the routes that scripts of other sites may call."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from lakebed.api.openapi.document import operation_of

__all__ = ["Cors"]

_ANY_ORIGIN = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"),
]
_PREFLIGHT_S = 7200  # no browser remembers a preflight for longer
_MAX_NAMES = 1000  # characters of the requested names of headers


class Cors:
    """Any origin may call the routes whose operation allows it; other routes send no CORS headers.

    The server sets no cookies, so a site can send only keys that it has.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._open = [
            route
            for route in routes
            if isinstance(route, Route)
            and (operation := operation_of(route.endpoint)) is not None
            and operation.any_origin
        ]

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The CORS headers of the response to a request with an Origin header."""
        return _ANY_ORIGIN if self._methods(scope) else []

    def preflight(self, scope: Scope) -> Response | None:
        """The response to an OPTIONS request if it is the preflight of an open route; None if it is not."""
        headers = Headers(scope=scope)
        methods = self._methods(scope)
        if not methods or "access-control-request-method" not in headers:
            return None
        allowed = {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "")[:_MAX_NAMES],
            "Access-Control-Max-Age": str(_PREFLIGHT_S),
            "Vary": "Access-Control-Request-Headers",
        }
        return Response(status_code=204, headers=allowed)

    def _methods(self, scope: Scope) -> list[str]:
        matching = [route for route in self._open if route.matches(scope)[0] != Match.NONE]
        return sorted({method for route in matching for method in route.methods or ()})
