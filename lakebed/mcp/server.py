"""The server: tools over stdio or HTTP, by the official SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lakebed.cli.exit_codes import SAID
from lakebed.cli.output import Table, to_json
from lakebed.clients.target import Target
from lakebed.concurrency import Worker
from lakebed.mcp.tools import TOOLS

__all__ = ["MAX_CHARACTERS", "MAX_ROWS", "make_app", "make_server", "run_stdio"]

MAX_ROWS = 500
"""Rows of one table that an answer has at the most."""
MAX_CHARACTERS = 40_000
"""Characters of one answer, about 10,000 tokens."""
_ABOUT = (
    "Product analytics of one Lakebed object, read only. Start with read-data-schema. People are counted after "
    "identity resolution; times are UTC; `as_of` gives any answer as it was at an instant."
)


def make_server(target: Target, worker: Worker) -> Server[Any, Any]:
    """The tools of `target`. Calls run one at a time, in `worker`'s one thread."""
    server: Server[Any, Any] = Server("lakebed", version("lakebed"), _ABOUT)

    @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's decorators have no types
    async def list_tools() -> list[types.Tool]:
        reads = types.ToolAnnotations(readOnlyHint=True, idempotentHint=True, openWorldHint=False)
        return [
            types.Tool(name=one.name, description=one.about, inputSchema=dict(one.schema), annotations=reads)
            for one in TOOLS.values()
        ]

    @server.call_tool()  # type: ignore[untyped-decorator]  # the same
    async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.TextContent]:
        tool = TOOLS.get(name)
        if tool is None:
            raise ValueError(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            found = await worker.run(tool.ask, target, given)
        except SAID as error:
            raise ValueError(str(error)) from error  # the SDK makes an answer of it that is marked as an error
        return [types.TextContent(type="text", text=told(found))]

    return server


def told(tables: Mapping[str, Table]) -> str:
    """Tables as text: a line of JSON with the columns and one for each row, cut where it becomes too long."""
    lines: list[str] = []
    left = MAX_CHARACTERS
    for heading, table in tables.items():
        head = [f"# {heading}"] if heading else []
        head.append(to_json(list(table.columns)))
        left -= sum(map(len, head))
        rows: list[str] = []
        for row in table.rows[:MAX_ROWS]:
            line = to_json(list(row))
            left -= len(line) + 1
            if left < 0:
                break
            rows.append(line)
        cut = len(table.rows) - len(rows)
        if cut:
            rows.append(f"({cut:,} of {len(table.rows):,} rows are left out: aggregate, or add a LIMIT and ask again)")
        if not table.rows:
            rows.append("(no rows)")
        lines += [*head, *rows, *([f"({table.origin})"] if table.origin else [])]
    return "\n".join(lines)


async def run_stdio(target: Target) -> None:
    """Serve whoever speaks on stdin, until it ends."""
    with Worker("mcp") as worker:
        server = make_server(target, worker)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


def make_app(target: Target, hosts: list[str]) -> Starlette:
    """An ASGI app that serves them at `/mcp`, to requests for these hosts only.

    By another name that leads here (DNS rebinding) a web page in a browser could ask them.
    """
    worker = Worker("mcp")
    manager = StreamableHTTPSessionManager(
        make_server(target, worker),
        json_response=True,
        stateless=True,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=True, allowed_hosts=hosts),
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with worker:
            async with manager.run():
                yield

    return Starlette(routes=[Route("/mcp", _Exchanges(manager))], lifespan=lifespan)


class _Exchanges:
    """The manager as an ASGI app: a route takes a bound method for a handler of requests."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)
