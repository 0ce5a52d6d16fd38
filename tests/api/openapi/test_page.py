"""/docs: the page has every route and loads no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.openapi.document import OpenApi, Parameter, operation
from lakebed.api.openapi.page import Reference


class Outline(HTMLParser):
    """Collects the tags, ids and links of a page, and checks that its elements are closed."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.ids = set()
        self.links = []
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        if "id" in attributes:
            assert attributes["id"] not in self.ids
            self.ids.add(attributes["id"])
        if "href" in attributes:
            self.links.append(attributes["href"])
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


async def page(app, path="/docs"):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as http:
        return await http.get(path)


@pytest.mark.parametrize("mount", ["", "/inner"])
async def test_the_page_has_every_route_and_loads_nothing(tmp_path, mount):
    """Each operation and schema has a heading that is linked to; no script, no image, no address of elsewhere."""
    inner = create_app(Namespace(tmp_path, Analytics))
    response = await page(Starlette(routes=[Mount(mount, inner)]) if mount else inner, f"{mount}/docs")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    outline = Outline()
    outline.feed(response.text)
    assert outline.open == []
    assert not set(outline.tags) & {"script", "img", "link", "iframe", "form", "object"}
    document = OpenApi(inner.routes).document()
    operations = {entry["operationId"] for path_item in document["paths"].values() for entry in path_item.values()}
    assert operations | {f"schema-{name}" for name in document["components"]["schemas"]} <= outline.ids
    assert {link[1:] for link in outline.links if link.startswith("#")} <= outline.ids
    assert [link for link in outline.links if not link.startswith("#")] == [f"{mount}/openapi.json"]


async def test_the_policy_allows_its_own_style_alone(tmp_path):
    """The Content-Security-Policy names the hash of the one style on the page, and allows nothing else."""
    response = await page(create_app(Namespace(tmp_path, Analytics)))
    styles = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert len(styles) == 1
    policy = response.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


async def test_descriptions_are_escaped():
    """Markup in a docstring or parameter is shown, not obeyed; `code` is set as code."""

    @operation(parameters=[Parameter("q", str, "</td><script>alert(1)</script>")], answer=str)
    async def odd(_request):
        """Says <b>bold</b> and `code`."""
        return Response()

    openapi = OpenApi([Route("/odd", odd)])
    text = (await page(Starlette(routes=Reference(openapi).routes()))).text
    assert "<script" not in text
    assert "&lt;b&gt;bold&lt;/b&gt; and <code>code</code>" in text
