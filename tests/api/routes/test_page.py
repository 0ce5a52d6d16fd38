"""The page as it is sent: policy, caching, compression, and everything that it needs from the package itself."""

from __future__ import annotations

import gzip
import re
from importlib import resources

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from lakebed import Analytics
from lakebed.api import create_app
from lakebed.auth.keys import Keys

STATIC = resources.files("lakebed.api") / "static"


@pytest.fixture
async def http(tmp_path):
    async with Analytics("tom", root=tmp_path) as tom:
        transport = httpx.ASGITransport(app=create_app(tom))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            client.tom = tom
            yield client


async def addresses(http):
    page = (await http.get("/")).text
    return re.findall(r'(?:src|href)="(static/[^"]+)"', page)


async def test_only_own_files_are_loaded(http):
    """The policy of the page and of each file forbids others."""
    for path in ("/", *(await addresses(http))):
        headers = (await http.get(path)).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; "
        )
        for part in ("base-uri 'none'", "frame-ancestors 'none'", "form-action 'none'", "trusted-types 'none'"):
            assert part in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_caching(http):
    """Files are cached for ever under an address with their digest; the page is revalidated, and is 304."""
    paths = await addresses(http)
    assert len(paths) >= 12
    assert len({path.split("/")[1] for path in paths}) == 1
    for path in paths:
        response = await http.get(path)
        assert (response.status_code, response.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    page = await http.get("/")
    assert page.headers["cache-control"] == "no-cache"
    revalidated = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (revalidated.status_code, revalidated.content) == (304, b"")
    other = paths[0].replace(paths[0].split("/")[1], "0" * 16)
    assert (await http.get(other)).status_code == 404


async def test_compression(http):
    """Gzip for clients that accept it, else plain bytes; the whole page is less than 60 KB."""
    total = 0
    for path in ("/", *(await addresses(http))):
        plain = await http.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
        assert response.headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(raw) == plain.content
        total += len(raw)
    assert total < 60_000


async def test_reports_are_loaded_later(http):
    """Each report's script is loaded when it is first opened; with all four the page is less than 70 KB."""
    at_once = await addresses(http)
    known = {path.rpartition("/")[2] for path in at_once}
    later = sorted(file.name for file in STATIC.iterdir() if file.name.endswith(".js") and file.name not in known)
    assert later == ["funnel.js", "paths.js", "performance.js", "retention.js"]
    version = at_once[0].split("/")[1]
    total = 0
    for path in ("/", *at_once, *(f"/static/{version}/{name}" for name in later)):
        async with http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
            assert response.status_code == 200
            total += len(b"".join([piece async for piece in response.aiter_raw()]))
    assert total < 70_000


@pytest.mark.parametrize(
    "name", ["../page.py", "%2e%2e/page.py", "..%2fpage.py", "/etc/passwd", "uplot/LICENSE", "", "index.html"]
)
async def test_only_the_files_of_the_page(http, name):
    """No path leads to another file."""
    version = (await addresses(http))[0].split("/")[1]
    assert (await http.get(f"/static/{version}/{name}", follow_redirects=True)).status_code == 404


async def test_the_page_states_whether_a_key_is_needed(http):
    """Before it sends a request; its address is the same, its ETag is not."""
    before = await http.get("/")
    assert 'data-keys=""' in before.text
    Keys(http.tom.root, http.tom.clock).create("tom", "read")
    after = await http.get("/")
    while after.text == before.text:  # the server looks for keys at intervals
        after = await http.get("/")
    assert 'data-keys="required"' in after.text
    assert after.headers["etag"] != before.headers["etag"]


async def test_mounted_in_another_app(tmp_path):
    """Its addresses are relative, so it works below another path."""
    async with Analytics("tom", root=tmp_path) as tom:
        outer = Starlette(routes=[Mount("/numbers", create_app(tom))])
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/numbers/") as client:
            page = await client.get("")
            assert page.status_code == 200
            for path in re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text):
                if path != "docs":
                    assert (await client.get(path)).status_code == 200, path


def test_no_file_names_another_site():
    """Neither scripts nor styles nor the page refer to other sites, evaluate text, or turn it into HTML."""
    for file in STATIC.iterdir():
        if file.name.endswith((".js", ".css", ".html", ".svg")):
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.findall(
                r"https?://|//cdn|@import|innerHTML|outerHTML|insertAdjacentHTML|eval\(|document\.write", text
            ), file.name
            assert "console." not in text
            assert not re.search(r"<[^>]+\s(on\w+|style)=", text), file.name


def test_the_chart_library_comes_with_its_licence():
    """uPlot is shipped as it was published, with its version and its licence beside it."""
    directory = STATIC / "uplot"
    assert "https://github.com/leeoniya/uPlot (v1.6.32)" in (directory / "uPlot.iife.min.js").read_text("utf-8")
    assert (directory / "LICENSE").read_text("utf-8").startswith("The MIT License (MIT)")
    assert (directory / "uPlot.min.css").is_file()
