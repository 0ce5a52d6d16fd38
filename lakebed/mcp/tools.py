"""The tools of an assistant. All of them read; none can write, delete or configure anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lakebed.clients.client import Client
from lakebed.clients.table import Table
from lakebed.interface.json_schema import body_of
from lakebed.reports.catalog import signature_of

__all__ = ["TOOLS", "Tool"]

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
    """A tool.

    Attributes:
        name: the name in the protocol.
        about: the description of its answer, for the assistant.
        verb: the verb that it calls.
        schema: the JSON Schema of its arguments.
        run: calls it; gives tables, each under a heading.
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
