"""Reference: the OpenAPI document as a page that people read. It asks for nothing else and runs nothing."""

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
        """What this room answers."""
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
        (f"{method.upper()} {path}", said) for path, item in document["paths"].items() for method, said in item.items()
    ]
    yield "<nav aria-label=Routes><table><tbody>"
    for name, said in operations:
        link = f'<a href="#{escape(said["operationId"])}"><code>{escape(name)}</code></a>'
        yield f"<tr><td>{link}</td><td>{_text(said['summary'])}</td></tr>"
    yield "</tbody></table></nav>"
    for name, said in operations:
        yield from _operation(name, said)
    yield "<h2 id=schemas>Schemas</h2>"
    for schema_name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<h3 id="schema-{escape(schema_name)}">{escape(schema_name)}</h3>{_json(schema)}'
    yield "</main></body></html>"


def _operation(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section><h2 id="{escape(said["operationId"])}"><code>{escape(name)}</code></h2>'
    yield f"<p>{_text(said['summary'])}</p>{_paragraphs(said['description'])}"
    if said.get("security"):
        yield f"<p>Needs a key with scope <code>{escape(next(iter(said['security'][0].values()))[0])}</code>.</p>"
    if said["parameters"]:
        yield "<h3>Parameters</h3><table><tbody>"
        for one in said["parameters"]:
            needed = ", required" if one["required"] else ""
            schema = escape(msgspec.json.encode(one["schema"]).decode())
            yield f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}{needed}</td>"
            yield f"<td>{_text(one.get('description', ''))}</td><td><code>{schema}</code></td></tr>"
        yield "</tbody></table>"
    if "requestBody" in said:
        yield "<h3>Body</h3>"
        yield from _content(said["requestBody"]["content"])
    yield "<h3>Answers</h3><table><tbody>"
    for status, answer in said["responses"].items():
        kinds = ", ".join(
            f"<code>{escape(media)}</code>{_named(one)}" for media, one in answer.get("content", {}).items()
        )
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{kinds}</td></tr>"
    yield "</tbody></table></section>"


def _content(content: Mapping[str, Any]) -> Iterator[str]:
    for media, one in content.items():
        named = _named(one)
        yield f"<p><code>{escape(media)}</code>{named}</p>"
        if not named and one["schema"]:
            yield _json(one["schema"])


def _named(one: Mapping[str, Any]) -> str:
    """A link to the schema of a body, if it has a name."""
    name = one["schema"].get("$ref", "").rpartition("/")[2]
    return f': <a href="#schema-{escape(name)}">{escape(name)}</a>' if name else ""


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value)).decode())}</pre>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(part)}</p>" for part in text.split("\n\n") if part.strip())


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
