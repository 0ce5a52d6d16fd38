"""A real server in the loop of the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def serving(server):
    """`server`, of uvicorn, on its port until the context ends; gives the port. Signals stay the test's own."""
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done(), serving.result()
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving
