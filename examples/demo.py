"""A shop to look at: real orders, the page over them, and live events that go on until Ctrl-C.

python examples/demo.py [--root data/demo] [--port 8080] [--for SECONDS | --once] [--fresh]

1. 42,481 order lines of December 2010 are stored with their true times, and archived.
2. The same lines are stored again, moved to the last fourteen days, so that the page has a present to show. They are
   marked `"replay": "moved"`; nothing else of them is changed.
3. Two keys are made, and `lakebed serve` is started.
4. Order lines are sent over HTTP as if they happened now, customer beside customer, at an irregular rate. They are
   marked `"replay": "live"`. The first is an order without a name, which is refused: a dead letter to look at.

Running it again stores nothing of the first two twice. The data is described in data/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from online_retail import read_events

from lakebed import Analytics, LakebedError
from lakebed.auth.keys import Keys

NAME = "shop"
NOTE = "made by the demo"
DAYS = 14
CHUNK = 5_000
YEAR_S = 365 * 86400.0
LASTING = {"dedupe_window_s": YEAR_S, "retention_s": YEAR_S}  # run again after weeks, it must still know its ids
START_S, STOP_S = 30.0, 20.0
ORDERS_A_MINUTE = 12
LINES_APART_S = 1.5

Event = dict[str, Any]


async def fill(root: Path) -> None:
    """Store December 2010 as it was, and again as the last fourteen days."""
    lines = read_events()
    async with Analytics(NAME, root=root, **LASTING) as shop:
        stored = await store(shop, lines)
        print(f"December 2010 as it was: {len(lines):,} order lines with their true times ({stored:,} new).")
        if stored:
            await shop.archive()
        again = list(moved(lines, datetime.now(UTC)))
        stored = await store(shop, again)
        print(f"The same shop, moved to the last {DAYS} days: {len(again):,} lines, marked as such ({stored:,} new).")
        await shop.rollup()


async def store(shop: Analytics, events: Sequence[Event]) -> int:
    """Store `events`; gives how many were new."""
    stored = 0
    for first in range(0, len(events), CHUNK):
        receipts = await shop.batch(events[first : first + CHUNK])
        stored += sum(receipt.status == "stored" for receipt in receipts)
    return stored


def moved(lines: Sequence[Event], now: datetime) -> Iterator[Event]:
    """What would have happened by `now` if each of the last days had been one of December 2010's.

    Which one depends on the date alone: another run, on another day, adds only the days since.
    """
    by_day: dict[date, list[tuple[int, Event]]] = {}
    for number, line in enumerate(lines):
        by_day.setdefault(datetime.fromisoformat(line["timestamp"]).date(), []).append((number, line))
    sources = sorted(by_day)
    for back in range(DAYS - 1, -1, -1):
        day = now.date() - timedelta(days=back)
        for number, line in by_day[sources[day.toordinal() % len(sources)]]:
            at = datetime.combine(day, datetime.fromisoformat(line["timestamp"]).timetz())
            if at <= now:
                yield marked(line, "moved", f"moved-{day}-{number}") | {"timestamp": at.isoformat()}


def marked(line: Event, how: str, message_id: str) -> Event:
    """`line` as another event, which says that it is one."""
    return line | {"messageId": message_id, "properties": line["properties"] | {"replay": how}}


def make_keys(root: Path) -> dict[str, str]:
    """A key to write with and one to look with. Those of an earlier run end: nobody can be shown them again."""
    keys = Keys(root)
    for key in keys.list(NAME):
        if key.note == NOTE:
            keys.revoke(key.id)
    return {scope: keys.create(NAME, scope, NOTE)[1] for scope in ("write", "admin")}


@contextlib.contextmanager
def served(root: Path, port: int, key: str) -> Iterator[str]:
    """`lakebed serve` in a process of its own; its address. Ends it, gracefully first.

    Raises:
        SystemExit: it does not come up.
    """
    command = [sys.executable, "-m", "lakebed", "serve", "--root", str(root), "--port", str(port)]
    environment = os.environ | {f"LAKEBED_{name.upper()}": str(value) for name, value in LASTING.items()}
    with (root / "serve.log").open("wb") as log:
        # Its own session: Ctrl-C is ours to pass on, after the last event was sent.
        server = subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while not answers(url, key):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server did not start, {root / 'serve.log'} says why")
            time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str, key: str) -> bool:
    """Whether the server lets us in."""
    try:
        ask(url, "/stats", key)
    except (urllib.error.URLError, OSError):
        return False
    return True


def ask(url: str, path: str, key: str, body: Any = None) -> Any:
    """One request, and the JSON of its answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data, headers)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        return json.load(answer)


def free_port(wanted: int) -> int:
    """`wanted`, or a free port where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                print(f"Port {port} is taken; another is used.")
                continue
            return int(probe.getsockname()[1])
    sys.exit("no port is free")


def journeys(lines: Iterable[Event], luck: random.Random) -> Iterator[tuple[float, Event]]:
    """What customers do, and when, in seconds from the start, for ever: each says who they are, then orders.

    They come at random moments, a dozen a minute, and order line by line, beside each other.
    """
    orders = [list(order) for _, order in itertools.groupby(lines, lambda line: line["properties"]["invoice"])]
    waiting: list[tuple[float, int, Event]] = []
    numbers = itertools.count()
    begins = 0.0
    while True:
        while waiting and waiting[0][0] <= begins:
            at, _, event = heapq.heappop(waiting)
            yield at, event
        at = begins
        for event in journey(luck.choice(orders)):
            heapq.heappush(waiting, (at, next(numbers), event))
            at += luck.lognormvariate(0.0, 1.0) * LINES_APART_S
        begins += luck.expovariate(ORDERS_A_MINUTE / 60)


def journey(order: Sequence[Event]) -> Iterator[Event]:
    """One customer and their order."""
    who = {name: order[0][name] for name in ("userId", "anonymousId") if name in order[0]}
    yield {"type": "identify", **who, "traits": {"country": order[0]["properties"]["country"]}}
    for line in order:
        yield {name: value for name, value in marked(line, "live", "").items() if name != "timestamp"}


def live(url: str, key: str, seconds: float | None, luck: random.Random) -> int:
    """Send what customers do as it happens, until `seconds` are over. How many events were stored."""
    run, sent, begun = f"live-{os.getpid()}-{time.time_ns()}", 0, time.monotonic()
    with contextlib.suppress(urllib.error.HTTPError):  # that is what it is sent for
        ask(url, "/track", key, {"event": "", "messageId": f"{run}-bad", "userId": "17850", "properties": {"demo": 1}})
    for at, event in journeys(read_events(), luck):
        if seconds is not None and at >= seconds:
            break
        time.sleep(max(0.0, begun + at - time.monotonic()))
        send(url, key, event | {"messageId": f"{run}-{sent}"})
        sent += 1
        if sys.stdout.isatty():
            print(f"\r{sent:,} live events sent ", end="", flush=True)
    return sent


def send(url: str, key: str, event: Event) -> None:
    """Send one event, again if need be: its message id makes sure that it is stored once."""
    for pause in (0.2, 1.0, 5.0):
        try:
            ask(url, "/track", key, event)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise
        except OSError:
            pass  # the connection was lost, with or without the event
        else:
            return
        time.sleep(pause)
    ask(url, "/track", key, event)


def main() -> int:
    """Fill, serve, and go on until told to stop. 0, also after Ctrl-C; 1 where an event was not stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    port = int(os.environ.get("LAKEBED_SERVE_PORT", "8080"))
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="where to keep it")
    parser.add_argument("--port", type=int, default=port, help="default: LAKEBED_SERVE_PORT, or 8080; 0 is any")
    parser.add_argument("--for", type=float, dest="seconds", help="seconds of live events; by default without end")
    parser.add_argument("--once", action="store_true", help="a few seconds of live events, then the end")
    parser.add_argument("--seed", type=int, help="the same customers each time")
    parser.add_argument("--fresh", action="store_true", help=f"delete the object {NAME!r} under --root first")
    arguments = parser.parse_args()
    if arguments.fresh and (arguments.root / NAME / "object.json").is_file():
        shutil.rmtree(arguments.root / NAME)
    seconds = 3.0 if arguments.once else arguments.seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(fill(arguments.root))
        keys = make_keys(arguments.root)
        with served(arguments.root, free_port(arguments.port), keys["admin"]) as url:
            print(f"\n  The page   {url}/#key={keys['admin']}")
            print(f"  Write key  {keys['write']}\n  Admin key  {keys['admin']}\n")
            until = "Ctrl-C ends it" if seconds is None else f"for {seconds:g} s"
            print(f"Real order lines are sent as live events; {until}.", flush=True)
            sent = live(url, keys["write"], seconds, random.Random(arguments.seed))  # noqa: S311 - not cryptography
            print(f"{sent:,} live events were sent and stored.")
    except KeyboardInterrupt:
        print("\nStopped. Another run goes on with what is stored.")
    except (LakebedError, OSError) as error:  # the directory is open elsewhere, the disk is full …
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
