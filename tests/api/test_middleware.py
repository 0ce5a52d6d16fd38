"""Properties of every request and every response, on every route."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.cors import Cors
from lakebed.api.errors import error_handlers
from lakebed.api.middleware import Exchange, ExchangeMiddleware
from lakebed.clock import ManualClock


def client(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def app_of(*routes, max_waiting=10, max_held_bytes=1000, watchers=(), clock=None):
    middleware = Middleware(
        ExchangeMiddleware,
        cors=Cors(routes),
        clock=clock or ManualClock(),
        max_waiting=max_waiting,
        max_held_bytes=max_held_bytes,
        watchers=watchers,
    )
    return Starlette(routes=list(routes), middleware=[middleware], exception_handlers=error_handlers)


@pytest.fixture
async def http(tmp_path):
    async with Namespace(tmp_path, Analytics) as namespace, client(create_app(namespace)) as http_client:
        yield http_client


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/openapi.json"), ("GET", "/nope"), ("DELETE", "/track"), ("POST", "/track"), ("GET", "/stats")],
)
async def test_every_response_has_security_headers(http, method, path):
    """No response may be sniffed, framed or executed, and no referrer is sent."""
    response = await http.request(method, path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_page_has_a_policy_of_its_own():
    """A route's own Content-Security-Policy is the only one."""

    async def page(_request):
        return Response("", headers={"Content-Security-Policy": "default-src 'self'"})

    async with client(app_of(Route("/", page))) as http:
        response = await http.get("/")
    assert response.headers.get_list("content-security-policy") == ["default-src 'self'"]


async def test_too_many_waiting_requests_are_503():
    """With Retry-After; health is still answered; when a request ends, the next is accepted."""
    release = asyncio.Event()

    async def slow(_request):
        await release.wait()
        return Response()

    async def health(_request):
        return Response()

    app = app_of(Route("/slow", slow), Route("/health", health), max_waiting=2)
    async with client(Starlette(routes=[Mount("/inner", app)])) as http:
        waiting = [asyncio.ensure_future(http.get("/inner/slow")) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        response = await http.get("/inner/slow")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["code"] == "OVERLOADED"
        assert (await http.get("/inner/health")).status_code == 200
        release.set()
        assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
        assert (await http.get("/inner/slow")).status_code == 200


async def test_bodies_that_wait_are_bounded():
    """The bytes of all waiting bodies are limited; a request above is 503, and its bytes are released."""
    release = asyncio.Event()

    async def keeps(request: Request):
        await request.body()
        await release.wait()
        return Response()

    async with client(app_of(Route("/", keeps, methods=["POST"]), max_held_bytes=1000)) as http:
        first = asyncio.ensure_future(http.post("/", content=b"x" * 900))
        for _ in range(20):
            await asyncio.sleep(0)
        response = await http.post("/", content=b"x" * 101)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "OVERLOADED")
        release.set()
        assert (await first).status_code == 200
        for _ in range(3):
            assert (await http.post("/", content=b"x" * 900)).status_code == 200


async def test_streams_do_not_count_as_waiting():
    """Listeners of a stream do not use up the limit of waiting requests."""
    release = asyncio.Event()

    async def stream(_request):
        async def lines():
            yield b"a"
            await release.wait()

        return StreamingResponse(lines())

    async def quick(_request):
        return Response()

    exchanges = []
    app = app_of(
        Route("/stream", stream),
        Route("/", quick),
        max_waiting=1,
        watchers=[lambda exchange, _seconds: exchanges.append((exchange.status, exchange.sent_bytes))],
    )
    async with client(app) as http:
        listeners = []
        for _ in range(3):
            listeners.append(asyncio.ensure_future(http.get("/stream")))
            for _ in range(20):
                await asyncio.sleep(0)
        assert (await http.get("/")).status_code == 200
        release.set()
        assert [response.content for response in await asyncio.gather(*listeners)] == [b"a"] * 3
    assert exchanges == [(200, 0), (200, 1), (200, 1), (200, 1)]


async def test_a_failed_request_is_counted():
    """An unexpected error is 500 in the usual form, with the headers of every response, and is counted."""
    clock = ManualClock()
    exchanges = []

    async def fails(_request):
        clock.advance(2.5)
        raise ZeroDivisionError("/secret/path")

    watcher = lambda exchange, seconds: exchanges.append((exchange.status, exchange.scope["route"].path, seconds))  # noqa: E731
    async with client(app_of(Route("/fails", fails), watchers=[watcher], clock=clock)) as http:
        response = await http.get("/fails")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in response.text
    assert exchanges == [(500, "/fails", 2.5)]


async def test_a_failure_in_the_middle_of_a_response():
    """The status is sent already: the error reaches the server, which closes the connection."""

    async def fails(_request):
        async def lines():
            yield b"a"
            raise ZeroDivisionError

        return StreamingResponse(lines())

    transport = httpx.ASGITransport(app=app_of(Route("/", fails)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/")


# CORS

ORIGIN = {"Origin": "https://shop.example"}


async def test_any_site_may_write(http):
    """A script of any site may send a preflight and events, and read the receipts."""
    headers = ORIGIN | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    response = await http.options("/track", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-methods"] == "POST"
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert response.headers["access-control-max-age"] == "7200"
    for event, status in (({"event": "a"}, 200), ({"event": ""}, 400)):
        response = await http.post("/track", json=event, headers=ORIGIN)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, "*")
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("path", ["/stats", "/dau", "/openapi.json", "/nope"])
async def test_no_site_may_read(http, path):
    """A route that needs a read key sends no CORS headers, so a browser hides the response from the script."""
    response = await http.options(path, headers=ORIGIN | {"Access-Control-Request-Method": "GET"})
    assert response.status_code in (404, 405)
    assert not [name for name in response.headers if name.startswith("access-control")]
    response = await http.get(path, headers=ORIGIN)
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_exchange_is_found_by_its_scope():
    """A route can reach its exchange; without the middleware there is none."""
    assert Exchange.of({"type": "http"}) is None
