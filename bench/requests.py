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
            times: dict[str, list[float]] = {"plain": [], "tracked": []}
            for _ in range(ROUNDS):
                for name, target in (("plain", app), ("tracked", tracked)):
                    start = time.process_time()
                    await _requests(target)
                    await analytics.flush()
                    times[name].append((time.process_time() - start) / REQUESTS * 1e6)
    plain_us, tracked_us = (statistics.median(times[name]) for name in ("plain", "tracked"))
    added = tracked_us - plain_us
    verdict = "met" if added <= LIMIT_US else "MISSED"
    print(f"{plain_us:.1f} us without, {tracked_us:.1f} us with ({tracked_us / plain_us:.1f} x): {added:.1f} us added")
    print(f"at most {LIMIT_US} us: {verdict}")


if __name__ == "__main__":
    asyncio.run(main())
