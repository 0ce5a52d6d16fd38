"""Reference: the OpenAPI document as a page for people. The page loads no other file and runs no script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.openapi.document import OpenApi

__all__ = ["Reference"]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid; padding-top: 1rem; overflow-wrap: anywhere; }
code, pre { font: 0.9em/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid; border-radius: 4px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 1rem 0.25rem 0; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CODE = re.compile(r"`([^`\n]+)`")


class Reference:
    """`GET /docs`.

    Swagger's and Redoc's pages were rejected: they are megabytes of script, and most load it from elsewhere.
    """

    def __init__(self, openapi: OpenApi) -> None:
        self._openapi = openapi

    def routes(self) -> list[BaseRoute]:
        """The route of the page."""
        return [Route("/docs", self.docs, methods=["GET"], include_in_schema=False)]

    async def docs(self, request: Request) -> Response:
        """Every route with its parameters, bodies and answers, as HTML."""
        page = "\n".join(_page(self._openapi.document(request.scope.get("root_path", ""))))
        return Response(page, headers={"Content-Security-Policy": _POLICY}, media_type="text/html")


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}: HTTP</title>"
    yield f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style></head><body><main>'
    yield f"<h1>{title}</h1>{_paragraphs(info['description'])}"
    base = document["servers"][0]["url"].rstrip("/")
    yield f'<p>For programs: <a href="{escape(base)}/openapi.json">openapi.json</a>.</p>'
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    yield "<nav aria-label=Routes><table><tbody>"
    for name, operation in operations:
        link = f'<a href="#{escape(operation["operationId"])}"><code>{escape(name)}</code></a>'
        yield f"<tr><td>{link}</td><td>{_text(operation['summary'])}</td></tr>"
    yield "</tbody></table></nav>"
    for name, operation in operations:
        yield from _operation(name, operation)
    yield "<h2 id=schemas>Schemas</h2>"
    for schema_name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<h3 id="schema-{escape(schema_name)}">{escape(schema_name)}</h3>{_json(schema)}'
    yield "</main></body></html>"


def _operation(name: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section><h2 id="{escape(operation["operationId"])}"><code>{escape(name)}</code></h2>'
    yield f"<p>{_text(operation['summary'])}</p>{_paragraphs(operation['description'])}"
    if operation.get("security"):
        yield f"<p>Needs a key with scope <code>{escape(next(iter(operation['security'][0].values()))[0])}</code>.</p>"
    if operation["parameters"]:
        yield "<h3>Parameters</h3><table><tbody>"
        for parameter in operation["parameters"]:
            required = ", required" if parameter["required"] else ""
            schema = escape(msgspec.json.encode(parameter["schema"]).decode())
            yield f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])}{required}</td>"
            yield f"<td>{_text(parameter.get('description', ''))}</td><td><code>{schema}</code></td></tr>"
        yield "</tbody></table>"
    if "requestBody" in operation:
        yield "<h3>Body</h3>"
        yield from _content(operation["requestBody"]["content"])
    yield "<h3>Answers</h3><table><tbody>"
    for status, answer in operation["responses"].items():
        kinds = ", ".join(
            f"<code>{escape(media)}</code>{_schema_link(body)}" for media, body in answer.get("content", {}).items()
        )
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{kinds}</td></tr>"
    yield "</tbody></table></section>"


def _content(content: Mapping[str, Any]) -> Iterator[str]:
    for media, body in content.items():
        link = _schema_link(body)
        yield f"<p><code>{escape(media)}</code>{link}</p>"
        if not link and body["schema"]:
            yield _json(body["schema"])


def _schema_link(body: Mapping[str, Any]) -> str:
    """A link to the schema of a body; empty if the schema has no name."""
    name = body["schema"].get("$ref", "").rpartition("/")[2]
    return f': <a href="#schema-{escape(name)}">{escape(name)}</a>' if name else ""


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value)).decode())}</pre>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(part)}</p>" for part in text.split("\n\n") if part.strip())


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
