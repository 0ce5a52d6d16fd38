"""@segment/analytics-next, unmodified, in Chromium on a page of another origin."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from lakebed import connect
from tests.clients.calls import CALLS, check, many, numbers
from tests.clients.faulty_server import STORED_AND_KILLED, STORED_BUT_503, UNAVAILABLE, Door
from tests.installed import chromium, node_modules

TESTS = ("single", "batching", "faults", "killed")
WHERE = "/page.html?utm_source=news&utm_campaign=spring&utm_id=7"
# A browser says by itself who is there, and when.
BROWSER_CALLS = [{name: value for name, value in call.items() if name != "timestamp"} for call in CALLS]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the page and the library."""

    def log_message(self, *_):
        """Nobody reads it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the page is."""
    directory = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("page.html"), directory)
    for file in (node_modules() / "@segment" / "analytics-next" / "dist" / "umd").glob("*.js"):
        shutil.copy(file, directory)
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    door = Door(tmp_path_factory.mktemp("door"))
    door.make_keys(TESTS)
    door.open()
    yield door
    door.close()
    for name in TESTS:
        with connect(door.root, name) as stored:
            assert stored.check() == []


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, site):
    context = browser.new_context(locale="de-AT")
    page = context.new_page()
    page.goto(site + WHERE, referer="https://www.search.example/q?x=1")
    yield page
    context.close()


def start(page, door, name, *, batching):
    page.evaluate("([key, door, batching]) => start(key, door, batching)", [door.keys[name], door.url, batching])


def arrived(page, door, name, count):
    """Wait until `count` events are stored and no request is under way; return the events."""
    until = time.monotonic() + 40
    while len(events := door.events(name)) < count or door.left():
        assert time.monotonic() < until, (len(events), page.evaluate("failures"))
        page.wait_for_timeout(50)
    assert page.evaluate("failures") == []
    return door.events(name)


@pytest.mark.parametrize("name", ["single", "batching"])
def test_every_call_arrives_once_with_every_field(page, door, name):
    """Over the short paths or /v1/b, to the host of our settings, with the context that the browser and we add."""
    before = len(door.posts())
    start(page, door, name, batching=name == "batching")
    page.evaluate("calls => send(calls)", BROWSER_CALLS)
    events = arrived(page, door, name, len(CALLS))
    posts = door.posts()[before:]
    assert set(posts) == ({"/v1/b"} if name == "batching" else {f"/v1/{call['type'][0]}" for call in CALLS})
    for event, call in zip(events, BROWSER_CALLS, strict=True):
        pages = {"path", "referrer", "search", "title", "url"} if call["type"] == "page" else set()
        properties = json.loads(event["properties"])
        expected = call.get("properties", {})
        event["properties"] = json.dumps(
            {key: properties[key] for key in properties if key not in pages or key in expected}
        )
        check(event, call)
        context = json.loads(event["context"])
        assert context["library"]["name"] == "analytics.js"
        assert context["campaign"] == {"source": "news", "name": "spring", "id": "7"}
        assert context["page"]["title"] == "Pricing"
        assert context["referrer"] == {"name": "search.example", "url": "https://www.search.example/q?x=1"}
        assert context["browser"]["name"] in ("HeadlessChrome", "Chrome")
        assert context["os"]["name"] == "Linux"
        assert (context["ip"], context["locale"]) == (call.get("context", {}).get("ip", "127.0.0.1"), "de-AT")


def test_calls_arrive_once_despite_errors_and_lost_answers(page, door):
    """503, and an answer that is lost after the event was stored: the browser tries again, each event is there once."""
    start(page, door, "faults", batching=False)
    door.faults(UNAVAILABLE, STORED_BUT_503)
    before = len(door.posts())
    page.evaluate("calls => send(calls)", many(4))
    arrived(page, door, "faults", 4)
    until = time.monotonic() + 20
    while len(door.posts()) - before < 6 and time.monotonic() < until:  # the two that failed come again
        page.wait_for_timeout(50)
    assert len(door.posts()) - before == 6
    assert numbers(door.events("faults")) == list(range(4))


def test_calls_arrive_once_when_the_server_is_killed(page, door):
    """SIGKILL after a batch was stored and before it was answered; on the same port again, every call is there once."""
    start(page, door, "killed", batching=True)
    page.evaluate("analytics.ready()")
    door.faults(STORED_AND_KILLED)
    page.evaluate("calls => { send(calls); }", many(20))
    door.await_death()
    door.open()
    assert numbers(arrived(page, door, "killed", 20)) == list(range(20))
