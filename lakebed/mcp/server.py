"""The MCP server: tools over stdio or HTTP, by the official SDK.

All tools read; none can write, delete or configure anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lakebed.clients.client import Client, Table, to_json
from lakebed.concurrency import Worker
from lakebed.errors import LakebedError
from lakebed.interface.json_schema import body_of
from lakebed.reports.reports import signature_of

__all__ = ["MAX_CHARACTERS", "MAX_ROWS", "TOOLS", "as_text", "make_app", "run_stdio"]

_SQL = {
    "type": "object",
    "properties": {
        "sql": {"type": "string", "description": "One SELECT in DuckDB's dialect."},
        "params": {
            "description": "A list for `?`, an object for `$name`.",
            "anyOf": [{"type": "array"}, {"type": "object"}],
        },
        "as_of": {"type": "string", "description": "ISO 8601: the answer as it was at that instant, exactly."},
    },
    "required": ["sql"],
    "additionalProperties": False,
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "event": {
            "type": "string",
            "description": "Name of an event: lists its properties; without it, tables and events.",
        }
    },
    "additionalProperties": False,
}
_PEOPLE = {
    "type": "object",
    "properties": {
        "search": {"type": "string", "description": "Only people with this text in an id or a trait, in any case."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 500, "description": "People at most; the default is 50."},
        "as_of": _SQL["properties"]["as_of"],  # type: ignore[index]  # a schema is a tree of anything
    },
    "additionalProperties": False,
}
_EVENTS = """
SELECT event, type, count(*) AS count, count(DISTINCT person_id) AS people,
    min(timestamp) AS first, max(timestamp) AS last
FROM events GROUP BY event, type ORDER BY count DESC, event, type LIMIT 200
"""
_SAMPLED = 10_000
_MEMBER = "'/' || replace(replace(property, '~', '~0'), '/', '~1')"
_PROPERTIES = f"""
WITH newest AS (
    SELECT properties FROM events WHERE event = $event ORDER BY seq DESC LIMIT {_SAMPLED}
), members AS (
    SELECT unnest(json_keys(properties)) AS property, properties FROM newest
), valued AS (
    SELECT property, json_type(properties, {_MEMBER}) AS type,
        left(json_extract_string(properties, {_MEMBER}), 80) AS example FROM members
)
SELECT property, count(*) AS events, list_sort(list(DISTINCT type)) AS types,
    list_slice(list_sort(list(DISTINCT example)), 1, 5) AS examples
FROM valued GROUP BY property ORDER BY events DESC, property LIMIT 200
"""
_LISTED = """
SELECT person_id, first_seen, last_seen, events, ids, groups, traits FROM people
WHERE $search IS NULL OR contains(lower(array_to_string(ids, ' ') || ' ' || traits), lower($search))
ORDER BY last_seen DESC, person_id LIMIT $limit
"""
_REPORTS = {"query-trends": "segmentation", "query-funnel": "funnel", "query-retention": "retention"}


class Tool(msgspec.Struct, frozen=True):
    """A tool of the assistant.

    Attributes:
        name: the name in the protocol.
        about: the description of its answer, for the assistant.
        verb: the verb that it calls.
        schema: the JSON Schema of its arguments.
        run: calls the verb, and returns tables by heading.
    """

    name: str
    about: str
    verb: str
    schema: Mapping[str, Any]
    run: Callable[[Client, Mapping[str, Any]], Mapping[str, Table]]


def _execute_sql(client: Client, values: Mapping[str, Any]) -> Mapping[str, Table]:
    return {"": client.table("query", values["sql"], values.get("params"), as_of=values.get("as_of"))}


def _read_data_schema(client: Client, values: Mapping[str, Any]) -> Mapping[str, Table]:
    if "event" in values:
        properties = client.table("query", _PROPERTIES, {"event": values["event"]})
        return {f"Properties of the newest {_SAMPLED:,}": properties}
    empty = client.table("query", "SELECT * FROM events LIMIT 0")
    columns = Table(("column",), [(name,) for name in empty.columns])
    return {"Columns of events": columns, "Events": client.table("query", _EVENTS)}


def _list_people(client: Client, values: Mapping[str, Any]) -> Mapping[str, Table]:
    params = {"search": values.get("search"), "limit": values.get("limit", 50)}
    return {"": client.table("query", _LISTED, params, as_of=values.get("as_of"))}


def _report(tool: str, name: str) -> Tool:
    signature = signature_of(name)
    _, parts = msgspec.json.schema_components([body_of(signature)])
    (body,) = parts.values()
    return Tool(tool, signature.doc, name, body, lambda client, values: {"": client.table(name, **values)})


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "execute-sql",
            "One read-only SELECT over the tables events, people, hourly_events, daily_metrics and the object's "
            "rollups. Call read-data-schema first. Aggregate: long results are cut.",
            "query",
            _SQL,
            _execute_sql,
        ),
        *(_report(tool, name) for tool, name in _REPORTS.items()),
        Tool(
            "read-data-schema",
            "The columns of events, and the events with their counts; or the properties of one event with their types "
            "and examples.",
            "query",
            _SCHEMA,
            _read_data_schema,
        ),
        Tool("list-people", "People, last seen first, with their ids and traits.", "query", _PEOPLE, _list_people),
    )
}
"""The tools by name."""


MAX_ROWS = 500
"""Maximum of rows of one table in an answer."""
MAX_CHARACTERS = 40_000
"""Maximum of characters of one answer, about 10,000 tokens."""
_EXPECTED = (LakebedError, sqlite3.Error, OSError)  # errors whose message the assistant gets; all others are bugs
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
            raise ValueError(str(error)) from error  # the SDK sends this as an answer that is marked as an error
        return [types.TextContent(type="text", text=as_text(tables))]

    return server


def as_text(tables: Mapping[str, Table]) -> str:
    """Tables as text: a line of JSON with the columns and one line for each row, cut when the text becomes too long."""
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

    Otherwise a web page could call the tools by another name that resolves to this machine (DNS rebinding).
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
    """The manager as an ASGI app: given the manager's bound method, a route would call it as a handler of requests."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)
