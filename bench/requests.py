"""What TrackRequests adds to a request of a Starlette app that does nothing: `python -m bench.requests`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lakebed import Analytics, TrackRequests

REQUESTS, ROUNDS = 1_000, 9
LIMIT_US = 50


async def _home(_request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def _send(_message: Any) -> None:
    pass


async def _requests(app: Any) -> None:
    for _ in range(REQUESTS):
        scope = {"type": "http", "method": "GET", "path": "/orders/7", "headers": [], "query_string": b""}
        await app(scope, _receive, _send)


async def main() -> None:
    """Print microseconds of processor time a request, of all threads: storing the event is in it."""
    app = Starlette(routes=[Route("/orders/{id}", _home)])
    with tempfile.TemporaryDirectory() as root:
        async with Analytics("bench", root=root) as analytics:
            tracked = TrackRequests(app, analytics, user=lambda _: "ann", organization=lambda _: "acme")
            spent: dict[str, list[float]] = {"plain": [], "tracked": []}
            for _ in range(ROUNDS):
                for name, one in (("plain", app), ("tracked", tracked)):
                    began = time.process_time()
                    await _requests(one)
                    await analytics.flush()
                    spent[name].append((time.process_time() - began) / REQUESTS * 1e6)
    plain, with_it = (statistics.median(spent[name]) for name in ("plain", "tracked"))
    added = with_it - plain
    met = "met" if added <= LIMIT_US else "MISSED"
    print(f"{plain:.1f} us without, {with_it:.1f} us with ({with_it / plain:.1f} x): {added:.1f} us added")
    print(f"at most {LIMIT_US} us: {met}")


if __name__ == "__main__":
    asyncio.run(main())
