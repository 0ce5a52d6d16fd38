"""The OpenAPI document: every route is in it, and all of its references exist."""

from __future__ import annotations

import re
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from starlette.responses import Response
from starlette.routing import Mount, Route

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.openapi.document import OpenApi, Parameter, described, operation


@pytest.fixture
def app(tmp_path):
    return create_app(Namespace(tmp_path, Analytics))


def test_every_route_is_described(app):
    """No route answers without a summary, and a scope where it touches an object, in the document."""
    descriptions = list(described(app.routes))
    assert not [(method, path) for path, method, about in descriptions if about is None or not about.summary]


async def test_the_document_is_served(app):
    """Each path and method is there once under its own operationId; every reference leads somewhere."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        response = await http.get("/openapi.json")
    document = response.json()
    assert document["openapi"] == "3.1.0"
    operations = [entry for path_item in document["paths"].values() for entry in path_item.values()]
    assert len(operations) == len(list(described(app.routes)))
    assert len({entry["operationId"] for entry in operations}) == len(operations)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', response.text))
    assert references <= set(document["components"]["schemas"])
    assert "ErrorAnswer" in references


def test_an_operation_becomes_an_entry():
    """Scope, parameters, bodies and answers of a handler become security, parameters, content and statuses."""

    class Thing(msgspec.Struct):
        size: int

    class Room:
        @operation(
            scope="admin",
            parameters=[Parameter("limit", Annotated[int, msgspec.Meta(ge=1)], "At most so many")],
            body={"application/json": Thing, "text/csv": str, "application/octet-stream": bytes},
            answer=Thing,
            status=201,
            refusals=[409],
        )
        async def make(self, _request):
            """Make a thing.

            And more of it.
            """
            return Response()

    routes = [Mount("/inner", routes=[Route("/things/{id:int}", Room().make, methods=["PUT"])])]
    document = OpenApi(routes).document("/root")
    assert document["servers"] == [{"url": "/root"}]
    entry: dict[str, Any] = document["paths"]["/inner/things/{id}"]["put"]
    assert (entry["summary"], entry["description"]) == ("Make a thing.", "And more of it.")
    assert {"bearer": ["admin"]} in entry["security"]
    assert [(parameter["name"], parameter["in"], parameter["required"]) for parameter in entry["parameters"]] == [
        ("id", "path", True),
        ("limit", "query", False),
    ]
    assert entry["parameters"][1]["schema"] == {"type": "integer", "minimum": 1}
    assert entry["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
        "text/csv": {"schema": {"type": "string"}},
        "application/octet-stream": {"schema": {}},
    }
    assert entry["responses"]["201"]["content"]["application/json"]["schema"]["$ref"] == "#/components/schemas/Thing"
    assert set(entry["responses"]) >= {"201", "400", "401", "403", "409", "413", "429", "500"}


def test_routes_without_a_description_are_left_out():
    """A handler without a description is named as such, and static routes are not part of the document."""

    async def bare(_request):
        return Response()

    routes = [Route("/bare", bare), Route("/static", bare, include_in_schema=False)]
    assert list(described(routes)) == [("/bare", "GET", None)]
    assert OpenApi(routes).document()["paths"] == {}
