"""A server with one object, and Chromium looking at its page."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.server import make_server

# The page runs this script before any other: it records the violations of the policy.
WATCH = """
window.violations = [];
addEventListener('securitypolicyviolation', (one) => violations.push(`${one.violatedDirective} ${one.blockedURI}`));
"""

# Texts with less contrast than 4.5 : 1, elements beyond the right edge, and elements that Tab reaches.
CONTRAST = """(element) => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((one, at) => one * a + below[at] * (1 - a));
  const linear = (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.map((one) => linear(one / 255))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    const own = parse(getComputedStyle(one).backgroundColor);
    if (own.length === 3 || own[3] === 1) return own.slice(0, 3);
    return over([...own.slice(0, 3), own[3] ?? 0], one.parentElement ? ground(one.parentElement) : [255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.checkVisibility()) continue;
    if (one.closest('.unseen, option, script, datalist')) continue;
    const below = ground(one), text = over(parse(getComputedStyle(one).color), below);
    const [high, low] = [light(text), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
WIDE = """[...document.querySelectorAll('main *, header *')]
  .filter((one) => one.checkVisibility() && !one.closest('.scroll, nav, .unseen, svg, .name, .u-wrap'))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
CONTROLS = """[...document.querySelectorAll('a, button, input, select, textarea, summary')]
  .filter((one) => one.checkVisibility() && !one.disabled)"""


class Site:
    """A running server. It may be stopped, and started again on the same port."""

    def __init__(self, root):
        self.root = root
        self.port = 0
        self.start()

    def start(self):
        app = create_app(Namespace(self.root, Analytics))
        stream = next(route.endpoint.__self__ for route in app.routes if getattr(route, "path", None) == "/live")
        stream._interval_s = 0.1  # a second otherwise, for which each test would wait several times
        self._server = make_server(app, port=self.port, log_level="critical")
        self._thread = threading.Thread(target=self._server.run, name="server")
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            threading.Event().wait(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def stop(self):
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def call(self, method, path, body=None, key=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, answer

    def batch(self, *events, key=None):
        status, answer = self.call("POST", "/track/batch", list(events), key)
        assert status == 200, answer
        return json.loads(answer)


class Visit:
    """An open page, and the events that must not happen on it."""

    def __init__(self, page, site):
        self.page = page
        self.site = site
        self.console = []
        self.foreign = []
        page.add_init_script(WATCH)
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._seen)

    def _seen(self, request):
        if not request.url.startswith((self.site.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def check(self, *, refusals=()):
        """The page has no message, error, violation or foreign request, except messages for the statuses `refusals`."""
        messages = [text for text in self.console if not any(f"status of {status}" in text for status in refusals)]
        assert messages == []
        assert self.foreign == []
        assert self.page.evaluate("violations") == []


@contextmanager
def visiting(browser, site, path="", **options):
    """Open the page of `site` in its own context, and check it at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    try:
        context.set_default_timeout(15_000)
        visit = Visit(context.new_page(), site)
        visit.page.goto(site.url + path)
        yield visit
    finally:
        context.close()
