"""RPC: Cap'n Web with its own client from npm, and the members that this client can reach."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from websockets.asyncio.client import connect

from lakebed import Analytics
from lakebed.api.app import create_app
from lakebed.api.auth import Auth
from lakebed.api.body import Body
from lakebed.api.errors import error_handlers
from lakebed.api.rpc.endpoint import RpcEndpoint
from lakebed.api.server import make_server
from lakebed.auth.keys import Keys
from tests.installed import chromium, node, node_modules
from tests.running_server import serving

pytestmark = pytest.mark.integration

CLIENT = "tests/clients/rpc.mjs"


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path, headroom_bytes=0) as analytics:
        yield analytics
        assert await analytics.check() == []


async def run(scenario, url, **environment):
    """Run a scenario of the npm client; return the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        node(),
        "--experimental-websocket",
        "--no-warnings",
        CLIENT,
        str(node_modules()),
        scenario,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture
def rpc(tom):
    return RpcEndpoint(Auth(tom), Body(1 << 20, 10), interval_s=0.02)


@pytest.fixture
async def url(rpc):
    app = Starlette(routes=rpc.routes(), exception_handlers=error_handlers)
    async with serving(make_server(app, port=0, log_level="warning")) as port:
        yield f"http://127.0.0.1:{port}/rpc"
        await rpc.close()
        assert not rpc.peers


@pytest.mark.parametrize("transport", ["batch", "socket"])
async def test_the_npm_client_pipelines_its_calls(url, transport):
    """Receipts, rows, an element's column, a map that calls, counters and errors: in a batch all in one round trip."""
    output = await run(transport, url)
    assert output["receipt"] == {"seq": 0, "message_id": "m1", "status": "stored", "reason": None}
    assert output["again"] == {"seq": 0, "message_id": "m1", "status": "duplicate", "reason": None}
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [{"date": f"{day:%Y-%m-%dT%H:%M:%S}.000Z"} for day in (today - timedelta(days=1), today)]
    assert [row["date"] for row in output["rows"]] == days
    assert output["today"] == output["rows"][1]["dau"]
    assert [(row["day"], row["people"]) for row in output["mapped"]] == [
        (d, r["dau"]) for d, r in zip(days, output["rows"], strict=True)
    ]
    assert output["missing"]["class"] == "TypeError"
    assert "needs end, start" in output["missing"]["message"]
    assert output.get("posts", 1) == 1


@pytest.mark.parametrize("transport", ["batch", "socket"])
async def test_the_whole_app_serves_it(tom, transport):
    """Through all layers of the app; the server stops although a client holds a connection."""
    async with serving(make_server(create_app(tom), port=0, log_level="warning")) as port:
        output = await run(transport, f"http://127.0.0.1:{port}/rpc")
        assert output["receipt"]["status"] == "stored"
        socket = await connect(f"ws://127.0.0.1:{port}/rpc")
        await socket.send('["push",["pipeline",0,["live"],[["export",-1]]]]')
        assert json.loads(await socket.recv())[0] == "push"
    await socket.wait_closed()
    assert "going away" in socket.close_reason


async def test_values_of_every_kind_pass(url, tom):
    """bigint, floats, NaN, bytes, dates, undefined and null keep their types in both directions."""
    output = await run("values", url)
    assert output["big"] == {"bigint": str(2**60)}
    assert output["float"] == 0.5
    assert (output["nan"]["type"], "nan" in output["nan"]["message"]) == ("ValueError", True)
    assert output["bytes"] == ["stored", "stored"]
    assert (output["dated"], output["undef"], output["none"]) == ("stored", 0, None)
    assert output["asOf"]["type"] == "InvalidAsOf"
    rows = (await tom.query("SELECT event, timestamp, source, properties FROM events ORDER BY seq")).rows
    assert [row.event for row in rows] == ["a", "b", "Dated"]
    assert rows[2].timestamp == datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)
    assert rows[2].source == "rpc"
    assert json.loads(rows[2].properties) == {"at": "1970-01-01T00:00:00.001000Z"}


async def test_errors_have_types_and_end_nothing(url):
    """Each has Lakebed's class and code beside the message; none shows a stack; the session goes on."""
    output = await run("errors", url)
    assert output.pop("alive") == 0
    assert not [name for name, error in output.items() if error.get("stack") is not False]
    assert {name: error["code"] for name, error in output.items()} == {
        "nope": "NOT_FOUND",
        "hidden": "NOT_FOUND",
        "close": "NOT_FOUND",
        "open": "NOT_FOUND",
        "__class__": "NOT_FOUND",
        "_components": "NOT_FOUND",
        "query_untrusted": "NOT_FOUND",
        "arguments": "INVALID_CALL",
        "event": "INVALID_EVENT",
        "index": "INVALID_CALL",
        "column": "NOT_FOUND",
        "stream": "INVALID_CALL",
    }
    assert (output["event"]["type"], output["index"]["class"]) == ("InvalidEvent", "RangeError")


async def test_callbacks_hear_of_changes_until_they_are_disposed(url, rpc):
    """All values first, then those that changed; after `dispose` the server forgets the callback."""
    output = await run("watch", url)
    assert output["seen"] == {"clicks:a": 2, "clicks:b": 2}
    assert output["next"] == output["first"] + 1
    assert len(rpc.watches) == 0


async def test_the_npm_client_shows_its_key(url, tom):
    """In a header of a batch, or by `authenticate` in either transport, pipelined; a wrong one and none are refused."""
    _, token = Keys(tom.root).create("tom", "read")
    await tom.track("Seen")
    output = await run("keyed", url, LAKEBED_KEY=token)
    assert (output["right"], output["over"], output["header"]) == (1, 1, 1)
    assert [(output[name]["type"], output[name]["code"]) for name in ("wrong", "none", "other")] == [
        ("AccessDenied", "KEY_UNKNOWN"),
        ("AccessDenied", "KEY_MISSING"),
        ("AccessDenied", "FORBIDDEN"),
    ]


async def test_what_nobody_awaits_in_a_batch_is_durable_too(url, tom):
    """A call that is only pushed ends before the answer is sent."""
    await run("forget", url)
    assert (await tom.query("SELECT event FROM events")).rows[0].event == "Forgotten"


async def test_a_refused_event_is_a_dead_letter(url, tom):
    """An event that `track` refuses is kept with its reason and its source."""
    await run("errors", url)
    letters = await tom.dead_letters()
    assert [(letter.source, json.loads(letter.raw)["type"]) for letter in letters] == [("rpc", "track")]


@pytest.fixture
async def page():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield await browser.new_page()
        await browser.close()


async def test_a_browser_opens_a_session(rpc, page):
    """The same client in Chromium, from a page of this host: calls, a map and a callback over its own WebSocket."""
    script = (node_modules() / "capnweb/dist/index.js").read_text()
    routes = [
        Route("/", lambda _request: Response("<!doctype html><title>x</title>", media_type="text/html")),
        Route("/capnweb.js", lambda _request: Response(script, media_type="text/javascript")),
    ]
    app = Starlette(routes=rpc.routes() + routes, exception_handlers=error_handlers)
    async with serving(make_server(app, port=0, log_level="warning")) as port:
        await page.goto(f"http://127.0.0.1:{port}/")
        result = await page.evaluate(
            """async (port) => {
                const { newWebSocketRpcSession } = await import("/capnweb.js");
                const api = newWebSocketRpcSession(`ws://127.0.0.1:${port}/rpc`);
                const receipt = await api.track("Seen", { in: "Chromium" }, { userId: "alice" });
                const seen = await new Promise((heard) => api.counters.watch("events:*", heard));
                const days = await api.dau(2).map((day) => day.dau);
                api[Symbol.dispose]();
                return { status: receipt.status, seen, days };
            }""",
            port,
        )
        assert result == {"status": "stored", "seen": {"events:Seen": 1}, "days": [0, 1]}
        await rpc.close()


_LINES = st.lists(
    st.sampled_from(
        [
            '["push",["pipeline",0,["stats"],[]]]',
            '["push",["pipeline",0,["dau"],[1]]]',
            '["push",["pipeline",0,["track"],["x"]]]',
            '["push",["pipeline",1,["0"]]]',
            '["push",["remap",2,[],[["import",0]],[["pipeline",-1,["counters","get"],["a"]]]]]',
            '["push",["pipeline",0,["live"],[["export",-1]]]]',
            '["push",["pipeline",0,["authenticate"],["k"]]]',
            '["push",["pipeline",0,["track"],[["promise",-1]]]]',
            '["resolve",-1,"x"]',
            '["pull",1]',
            '["pull",2]',
            '["pull",3]',
            '["release",1,1]',
            '["pipe"]',
            '["abort",["error","Error","x"]]',
        ]
    ).map(str.encode)
    | st.binary(max_size=20),
    max_size=10,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=_LINES, cut=st.integers(0, 30))
async def test_any_batch_is_answered_with_200(rpc, lines, cut):
    """Whatever bytes there are: no 5xx, each line of the answer is a message, and no task or session is left."""
    app = Starlette(routes=rpc.routes(), exception_handlers=error_handlers)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        response = await client.post("/rpc", content=b"\n".join(lines)[cut:])
    assert response.status_code == 200
    assert all(json.loads(line)[0] in ("resolve", "reject", "abort", "release") for line in response.text.splitlines())
    assert "INTERNAL" not in response.text
    assert (len(rpc.peers), len(rpc.watches)) == (0, 0)
