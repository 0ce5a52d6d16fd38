"""TrackRequests: what is stored of requests, and that the app in it never notices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from lakebed import Analytics, ManualClock, Settings, TrackRequests
from tests.disks import FaultyDisk
from tests.running_server import serving

COLUMNS = "method, path, status_code, duration_ms, user_id, organization_id, properties ->> 'error' AS error"


class Told:
    """An object that remembers what it was told."""

    def __init__(self):
        self.events = []

    def track(self, event, properties, **options):
        self.events.append((event, properties, options))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def shop(tmp_path, clock):
    async with Analytics("shop", root=tmp_path, clock=clock) as analytics:
        yield analytics
        assert await analytics.check() == []


def client(app, *, raises=False):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=raises)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def starlette_app(clock, **options):
    """An app with a route of each kind."""

    async def order(request):
        clock.advance(0.25)
        request.scope["seller"] = "acme"
        return PlainTextResponse(str(request.path_params["id"]), headers={"x-more": "1"})

    async def broken(_request):
        clock.advance(0.5)
        raise ZeroDivisionError("secret")

    async def unavailable(_request):
        return PlainTextResponse("later", 503)

    async def stream(_request):
        async def parts():
            for part in range(4):
                clock.advance(1)
                yield str(part)

        return StreamingResponse(parts())

    async def slowly_after(_request):
        def work():
            clock.advance(100)

        return PlainTextResponse("now", background=BackgroundTask(work))

    routes = [
        Route("/orders/{id}", order, methods=["GET", "POST"]),
        Route("/broken", broken),
        Route("/unavailable", unavailable),
        Route("/stream", stream),
        Route("/after", slowly_after),
        Mount("/of/{tenant}", routes=[Route("/orders/{id:int}", order)]),
    ]
    return Starlette(routes=routes, **options)


async def rows(shop, columns=COLUMNS):
    await shop.flush()
    return [tuple(row) for row in (await shop.query(f"SELECT {columns} FROM events ORDER BY seq")).rows]


async def test_a_request_is_an_event(shop, clock):
    """Method, the route as declared, status, milliseconds, user and organization; the timestamp is its arrival."""
    app = TrackRequests(
        starlette_app(clock),
        shop,
        user=lambda scope: dict(scope["headers"])[b"x-user"].decode(),
        organization=lambda scope: scope["seller"],  # that the app itself put there
        clock=clock,
    )
    async with client(app) as http:
        answer = await http.post("/orders/17", headers={"X-User": "ann"})
    assert (answer.status_code, answer.text, answer.headers["x-more"]) == (200, "17", "1")
    assert await rows(shop) == [("POST", "/orders/{id}", 200, 250.0, "ann", "acme", None)]
    assert await rows(shop, "event, epoch(timestamp)") == [("api.request", 1767225600.0)]


async def test_paths_are_templates(shop, clock):
    """In mounts too, and for a wrong method; without a route the path is NULL, so that scanners add no paths."""
    app = TrackRequests(starlette_app(clock), shop, clock=clock)
    async with client(app) as http:
        for path in ("/orders/1", "/orders/2", "/of/acme/orders/3", "/wp-admin.php", "/unavailable"):
            await http.get(path)
        await http.delete("/orders/1")
    assert await rows(shop, "path, status_code") == [
        ("/orders/{id}", 200),
        ("/orders/{id}", 200),
        ("/of/{tenant}/orders/{id:int}", 200),
        (None, 404),
        ("/unavailable", 503),
        ("/orders/{id}", 405),
    ]


async def test_as_a_starlette_middleware(clock):
    """`app.add_middleware(TrackRequests, analytics=…)` sees the same templates."""
    analytics = Told()
    app = starlette_app(clock)
    app.add_middleware(TrackRequests, analytics=analytics, clock=clock)
    async with client(app) as http:
        await http.get("/orders/17")
    [(event, properties, options)] = analytics.events
    expected = {"method": "GET", "path": "/orders/{id}", "status_code": 200, "duration_ms": 250.0}
    assert (event, properties) == ("api.request", expected)
    assert options == {"user_id": None, "timestamp": 1767225600.0}


async def test_an_app_without_routes_has_paths_as_they_are(clock):
    """Without a router, `path` is the path itself; if a router sets only the endpoint, names replace the parameters."""
    analytics = Told()

    async def bare(scope, _receive, send):
        if scope["path"].startswith("/users/"):
            scope |= {"endpoint": bare, "path_params": {"name": "ann"}}
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with client(TrackRequests(bare, analytics, clock=clock)) as http:
        await http.get("/some/where")
        await http.get("/users/ann/photo")
    assert [event[1]["path"] for event in analytics.events] == ["/some/where", "/users/{name}/photo"]


async def test_an_exception_is_500_and_raised_again(shop, clock):
    """With its class, and without its message; the server still gets it."""
    app = TrackRequests(starlette_app(clock), shop, clock=clock)
    async with client(app, raises=True) as http:
        with pytest.raises(ZeroDivisionError, match="secret"):
            await http.get("/broken")

    async def half(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})
        raise KeyError("in the middle")

    async def silent(_scope, _receive, _send):
        pass

    async with client(TrackRequests(half, shop, clock=clock)) as http:
        await http.get("/half")
    await TrackRequests(silent, shop, clock=clock)(
        {"type": "http", "method": "GET", "path": "/silent"}, asyncio.Event().wait, asyncio.Event().wait
    )
    assert await rows(shop) == [
        ("GET", "/broken", 500, 500.0, None, None, "ZeroDivisionError"),
        ("GET", "/half", 500, 0.0, None, None, "KeyError"),
        ("GET", "/silent", 500, 0.0, None, None, None),
    ]


async def test_streams_are_measured_until_their_end(shop, clock):
    """Background tasks after the response do not count."""
    app = TrackRequests(starlette_app(clock), shop, clock=clock)
    async with client(app) as http:
        assert (await http.get("/stream")).text == "0123"
        assert (await http.get("/after")).text == "now"
    assert await rows(shop, "path, duration_ms") == [("/stream", 4000.0), ("/after", 0.0)]


def asked(app, clock, *, leaves_after):
    """A request whose client leaves after so many messages of the answer, by what `receive` says and by OSError."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}
    scope["asgi"] = {"spec_version": "2.4", "version": "3.0"}
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        if len(sent) >= leaves_after:
            raise OSError(errno.EPIPE, "gone")
        clock.advance(1)
        sent.append(message)

    return app(scope, receive, send)


async def test_a_disconnected_client_is_recorded(clock):
    """As `disconnected`, with the status that was sent, or 499; an error of the app after that is not recorded."""
    analytics = Told()

    async def streams(scope, receive, send):
        async def parts():
            while True:
                yield b"more"

        await StreamingResponse(parts(), 206)(scope, receive, send)

    async def reads(scope, receive, send):
        await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)

    async def looks_after(scope, receive, send):
        await PlainTextResponse("all of it")(scope, receive, send)
        await receive()

    for app, leaves_after in ((streams, 3), (reads, 0), (looks_after, 2)):
        with contextlib.suppress(ClientDisconnect):  # the app's own way to end
            await asked(TrackRequests(app, analytics, clock=clock), clock, leaves_after=leaves_after)
    noted = [{name: properties[name] for name in properties if name != "path"} for _, properties, _ in analytics.events]
    assert noted == [
        {"method": "GET", "status_code": 206, "duration_ms": 3000.0, "disconnected": True},
        {"method": "GET", "status_code": 499, "duration_ms": 0.0, "disconnected": True},
        {"method": "GET", "status_code": 200, "duration_ms": 2000.0},
    ]


async def test_a_request_that_is_cancelled_is_recorded(clock):
    """A server that gives up on a request cancels it: the cancellation is raised, and the event is stored."""
    analytics = Told()
    begun = asyncio.Event()

    async def hangs(_scope, _receive, _send):
        begun.set()
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/hangs"}
    task = asyncio.create_task(TrackRequests(hangs, analytics, clock=clock)(scope, begun.wait, begun.wait))
    await begun.wait()
    clock.advance(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    expected = {"method": "GET", "path": "/hangs", "status_code": 500, "duration_ms": 2000.0, "error": "CancelledError"}
    assert [properties for _, properties, _ in analytics.events] == [expected]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_websockets_and_lifespan_pass(kind):
    """The app gets the original `receive` and `send`, and nothing is stored."""
    analytics, calls = Told(), []

    async def app(*arguments):
        calls.append(arguments)

    arguments = {"type": kind, "path": "/echo"}, asyncio.Event().wait, asyncio.Event().set
    await TrackRequests(app, analytics)(*arguments)
    assert calls == [arguments]
    assert analytics.events == []


async def test_health_checks_can_be_left_out(clock):
    """Requests whose template is in `skip` are not stored."""
    analytics = Told()
    app = TrackRequests(starlette_app(clock), analytics, skip=["/orders/{id}", "/health"], clock=clock)
    async with client(app) as http:
        await http.get("/orders/1")
        await http.get("/unavailable")
    assert [properties["path"] for _, properties, _ in analytics.events] == ["/unavailable"]


def test_a_coroutine_function_as_user_is_refused():
    """`user=` needs a plain function; the error says so at once."""

    async def user(_scope):
        return "ann"

    with pytest.raises(TypeError, match="plain"):
        TrackRequests(starlette_app(ManualClock()), Told(), user=user)


# What goes wrong


async def test_an_error_in_user_leaves_the_event_without_a_user(shop, clock, caplog):
    """The response is unchanged, the event has no user, and the failure is counted, reported and logged once."""
    heard = []

    def on_error(error):
        heard.append(error)
        raise RuntimeError("and this one is broken too")

    def user(_scope):
        raise KeyError("session")

    app = TrackRequests(starlette_app(clock), shop, user=user, on_error=on_error, clock=clock)
    with caplog.at_level(logging.ERROR, "lakebed.requests"):
        async with client(app, raises=True) as http:
            for _ in range(3):
                assert (await http.get("/orders/1")).text == "1"
    assert app.failures == len(heard) == 3
    assert sum("not tracked" in record.message for record in caplog.records) == 1
    assert await rows(shop, "path, user_id") == [("/orders/{id}", None)] * 3


async def test_a_closed_object_does_not_break_the_app(tmp_path, clock, caplog):
    """Responses continue before it is opened and after it is closed; requests in between are stored."""
    shop = Analytics("shop", root=tmp_path, clock=clock)
    app = TrackRequests(starlette_app(clock), shop, clock=clock)
    async with client(app, raises=True) as http:
        assert (await http.get("/orders/1")).status_code == 200
        async with shop:
            assert (await http.get("/orders/2")).status_code == 200
        assert (await http.get("/orders/3")).status_code == 200
    assert app.failures == 2
    assert "not open" in caplog.text
    async with shop:
        assert len(await rows(shop)) == 1


async def test_a_full_disk_does_not_break_the_app(tmp_path, clock):
    """Responses continue, and the object reports the events that it could not store."""
    heard = []
    disk = FaultyDisk()
    async with Analytics("shop", root=tmp_path, clock=clock, disk=disk, on_error=heard.append) as shop:
        app = TrackRequests(starlette_app(clock), shop, clock=clock)
        async with client(app, raises=True) as http:
            await http.get("/orders/1")
            await shop.flush()
            disk.free = 0
            for number in range(3):
                assert (await http.get(f"/orders/{number}")).status_code == 200
            await shop.flush()
            for _ in range(3):  # the futures' callbacks
                await asyncio.sleep(0)
            disk.free = None
        assert [type(error).__name__ for error in heard] == ["DiskFull"] * 3
        assert len(await rows(shop)) == 1
        assert app.failures == 0  # handed over it was


async def test_backpressure_does_not_break_the_app(tmp_path, clock):
    """If more events arrive than may wait, responses continue, and the object reports the dropped ones."""
    heard = []
    settings = Settings(pending_events=1)
    async with Analytics("shop", root=tmp_path, settings=settings, on_error=heard.append) as shop:
        app = TrackRequests(starlette_app(clock), shop)
        async with client(app, raises=True) as http:
            answers = await asyncio.gather(*(http.get(f"/orders/{number}") for number in range(50)))
        assert [answer.status_code for answer in answers] == [200] * 50
        await shop.flush()
        stored = len(await rows(shop))
        assert stored + len(heard) == 50
        assert stored >= 1


async def test_over_a_real_server(shop, clock):
    """uvicorn and a socket: responses on several connections, each with an event."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server extra is not installed")
    app = TrackRequests(starlette_app(clock), shop, organization=lambda _scope: "acme", clock=clock)
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    async with serving(uvicorn.Server(config)) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answers = await asyncio.gather(*(http.get(f"/orders/{number}") for number in range(20)))
        assert [answer.text for answer in answers] == [str(number) for number in range(20)]
        assert (await http.get("/broken")).status_code == 500
    stored = await rows(shop, "path, status_code, organization_id, properties ->> 'error'")
    assert stored == [("/orders/{id}", 200, "acme", None)] * 20 + [("/broken", 500, "acme", "ZeroDivisionError")]


async def test_the_properties_are_the_promoted_ones(shop, clock):
    """`performance` reads the stored properties: JSON and columns agree."""
    app = TrackRequests(starlette_app(clock), shop, clock=clock)
    async with client(app) as http:
        await http.get("/orders/1")
    [(properties,)] = await rows(shop, "properties")
    expected = {"duration_ms": 250.0, "status_code": 200, "method": "GET", "path": "/orders/{id}"}
    assert json.loads(properties) == expected
