"""The MCP server: tools over stdio or HTTP, by the official SDK."""

from __future__ import annotations

import sqlite3
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

from lakebed.clients.client import Client
from lakebed.clients.table import Table, to_json
from lakebed.concurrency import Worker
from lakebed.errors import LakebedError
from lakebed.mcp.tools import TOOLS

__all__ = ["MAX_CHARACTERS", "MAX_ROWS", "as_text", "make_app", "make_server", "run_stdio"]

MAX_ROWS = 500
"""Maximum of rows of one table in an answer."""
MAX_CHARACTERS = 40_000
"""Maximum of characters of one answer, about 10,000 tokens."""
_EXPECTED = (LakebedError, sqlite3.Error, OSError)  # an assistant is told what they say; others are bugs
_ABOUT = (
    "Product analytics of one Lakebed object, read only. Start with read-data-schema. People are counted after "
    "identity resolution; times are UTC; `as_of` gives any answer as it was at an instant."
)


def make_server(client: Client, worker: Worker) -> Server[Any, Any]:
    """The MCP server with all tools.

    Args:
        client: the object that the tools read.
        worker: one thread; calls run in it one at a time.
    """
    server: Server[Any, Any] = Server("lakebed", version("lakebed"), _ABOUT)

    @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's decorators have no types
    async def list_tools() -> list[types.Tool]:
        reads = types.ToolAnnotations(readOnlyHint=True, idempotentHint=True, openWorldHint=False)
        return [
            types.Tool(name=tool.name, description=tool.about, inputSchema=dict(tool.schema), annotations=reads)
            for tool in TOOLS.values()
        ]

    @server.call_tool()  # type: ignore[untyped-decorator]  # the same
    async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.TextContent]:
        tool = TOOLS.get(name)
        if tool is None:
            raise ValueError(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
        values = {key: value for key, value in arguments.items() if value is not None}
        try:
            tables = await worker.run(tool.run, client, values)
        except _EXPECTED as error:
            raise ValueError(str(error)) from error  # the SDK sends it as an answer that is marked as an error
        return [types.TextContent(type="text", text=as_text(tables))]

    return server


def as_text(tables: Mapping[str, Table]) -> str:
    """Tables as text: a line of JSON with the columns and one for each row, cut where the text becomes too long."""
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


async def run_stdio(client: Client) -> None:
    """Serve the tools on stdin and stdout, until stdin ends."""
    with Worker("mcp") as worker:
        server = make_server(client, worker)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


def make_app(client: Client, hosts: list[str]) -> Starlette:
    """An ASGI app that serves the tools at `/mcp`, to requests for these hosts only.

    With another name that resolves to this machine (DNS rebinding), a web page in a browser could call the tools.
    """
    worker = Worker("mcp")
    manager = StreamableHTTPSessionManager(
        make_server(client, worker),
        json_response=True,
        stateless=True,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=True, allowed_hosts=hosts),
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with worker:
            async with manager.run():
                yield

    return Starlette(routes=[Route("/mcp", _McpApp(manager))], lifespan=lifespan)


class _McpApp:
    """The manager as an ASGI app: a route would take its bound method for a handler of requests."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)
