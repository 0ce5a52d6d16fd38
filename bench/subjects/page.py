"""The page: how soon it shows something, and what an open page and those who listen to /live cost the server."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from bench import sample
from bench.goal import Goal
from bench.measure import Absent, Contender, Figures
from bench.row import Row
from bench.run import Run

GOALS: Sequence[Goal] = ()
RATE, BODY = 20_000, 500  # events a second, in bodies of so many
LISTENERS = 200
MEASURED_S = 12.0
FILL = 100_000
TICK_S = os.sysconf("SC_CLK_TCK") ** -1
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


class Server:
    """`lakebed serve` in a process of its own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "lakebed", "serve", "--root", str(directory), "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}/"
        while not self._answers():
            assert self._process.poll() is None, f"the server ended with {self._process.returncode}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.send(b'{"event": "Seen", "userId": "user-1"}', "/track")
        except OSError:
            return False
        return True

    def send(self, body: bytes, path: str = "/track/batch") -> None:
        """Store events over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, body)
        assert connection.getresponse().status == 200
        connection.close()

    def spent_s(self) -> float:
        """Processor seconds of all its threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)


class Load:
    """Sends `RATE` events a second, each body on time or at once when it is late; `sent` counts them."""

    def __init__(self, server: Server) -> None:
        self.sent = 0
        self._server = server
        self._bodies = [sample.batch(1_000_000 + number, BODY) for number in range(int(RATE / BODY * 60))]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        due, rounds = time.perf_counter(), 0
        while not self._stop.is_set():
            body = self._bodies[rounds % len(self._bodies)]
            if rounds >= len(self._bodies):  # the ids were seen: a second round would be duplicates
                body = sample.batch(2_000_000 + rounds, BODY)
            connection.request("POST", "/track/batch", body)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            self.sent, rounds, due = self.sent + BODY, rounds + 1, due + BODY / RATE
            self._stop.wait(max(0.0, due - time.perf_counter()))
        connection.close()


def _listening(server: Server, count: int) -> list[socket.socket]:
    """Sockets that read /live in one thread, and throw it away."""
    sockets = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        connection.setblocking(False)
        sockets.append(connection)
    return sockets


def _drained(sockets: Sequence[socket.socket], seconds: float) -> int:
    """Read from all for so long; gives how many messages came."""
    end, messages = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for connection in sockets:
            try:
                messages += connection.recv(1 << 16).count(b"data: ")
            except BlockingIOError:
                continue
        time.sleep(0.2)
    return messages


def _cost(server: Server, work: Callable[[], object]) -> float:
    """Cores that the server takes while `work` goes on."""
    spent, start = server.spent_s(), time.perf_counter()
    work()
    return (server.spent_s() - spent) / (time.perf_counter() - start)


@contextmanager
def _browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise Absent("Chromium is not installed")
    if find_spec("playwright") is None:
        raise Absent("playwright is not installed")
    from playwright.sync_api import sync_playwright  # may be absent

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def _filled(directory: Path, events: int) -> Iterator[Server]:
    server = Server(directory)
    try:
        for body in sample.batches(events):
            server.send(body)
        yield server
    finally:
        server.close()


def _visit(browser: Any, url: str) -> tuple[Any, Figures]:
    """A cold load: an empty cache, a new context. Milliseconds to the first paint, to numbers, and to both charts."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#status[data-state=live]")
    numbers = time.perf_counter() - start
    page.wait_for_selector("#events-chart canvas")
    page.wait_for_selector("#people-chart canvas")
    charts = time.perf_counter() - start
    return page, {"paint": page.evaluate(PAINTED), "numbers": numbers * 1_000, "charts": charts * 1_000}


def page(directory: Path, events: int, seconds: float) -> Iterator[Figures]:
    """A cold load of a quiet server, then of a busy one, which it stays open on for a while."""
    with _browser() as browser, _filled(directory, events) as server:
        while True:
            opened, figures = _visit(browser, server.url)
            opened.context.close()
            with Load(server) as load:
                figures["alone"] = _cost(server, lambda: time.sleep(seconds))
                opened, busy = _visit(browser, server.url)
                figures |= {f"busy {name}": value for name, value in busy.items()}
                sent = load.sent
                figures["open"] = _cost(server, lambda: opened.wait_for_timeout(seconds * 1_000))  # noqa: B023
                figures["rate"] = (load.sent - sent) / seconds
                opened.context.close()
            yield figures


def listeners(directory: Path, events: int, seconds: float) -> Iterator[Figures]:
    """What `LISTENERS` streams cost beside the same load without them."""
    with _filled(directory, events) as server:
        while True:
            with Load(server):
                alone = _cost(server, lambda: time.sleep(seconds))
                sockets = _listening(server, LISTENERS)
                messages = 0

                def listen() -> None:
                    nonlocal messages
                    messages = _drained(sockets, seconds)  # noqa: B023

                beside = _cost(server, listen)
                for connection in sockets:
                    connection.close()
            assert messages, "no message came"
            # Below zero where the load itself cost more in one of the two: then the spread says that this is noise.
            yield {"us": (beside - alone) / LISTENERS * 1_000_000, "messages": messages / LISTENERS / seconds}


def rows(run: Run) -> list[Row]:
    """Milliseconds of a cold load, quiet and busy; the server's throughput and processor time."""
    options = {"events": run.of(FILL), "seconds": min(MEASURED_S, max(2.0, MEASURED_S * run.size))}
    results = run.turns([Contender(turns.__name__, turns, options) for turns in (page, listeners)])
    load = f"{RATE:,} events/s"
    table_rows = [
        Row("page", f"cold load until {moment}{suffix}", "ms", results.get("page", f"{prefix}{figure}"))
        for prefix, suffix in (("", ""), ("busy ", f", beside {load}"))
        for figure, moment in (("paint", "the first paint"), ("numbers", "live numbers"), ("charts", "both charts"))
    ]
    table_rows += [
        Row("page", f"events stored beside one open page, {load} sent", "events/s", results.get("page", "rate")),
        Row("page", f"cores of the server: {load}, no page", "cores", results.get("page", "alone")),
        Row("page", f"cores of the server: {load}, one page open", "cores", results.get("page", "open")),
        Row(
            "page",
            f"processor time of one of {LISTENERS} listeners, beside {load}",
            "us/s",
            results.get("listeners", "us"),
        ),
    ]
    return table_rows
