"""How far a call goes through the source: python -m bench.walks [JOURNEY …] [--json FILE] [--check].

For each journey, over all threads of the process: the files of `lakebed` that are entered, the function calls in them,
moves from one file to another, and moves back to a file that was entered before. A resumed coroutine counts as a call.
Every journey is warm: it runs `_WARM` times, then once under the profiler. Only the public API drives it, so that the
walks of two versions can be compared: copy this file into the `bench` of the other one.

What another process does (the sandbox that runs untrusted SQL) is not seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import msgspec
import uvicorn

import lakebed
from lakebed import Analytics, Namespace
from lakebed.api import create_app

_PACKAGE = str(Path(lakebed.__file__).parent)
_WARM = 3
_NAME = "shop"

Run = Callable[[], Awaitable[object]]


class Walk(msgspec.Struct):
    """What one run of a journey visited.

    Attributes:
        files: paths inside the package, in the order in which they were first entered.
        calls: functions entered, resumed coroutines included.
        moves: calls whose function is in another file than the call before.
        returns: moves to a file that had been entered before.
    """

    files: list[str] = []
    calls: int = 0
    moves: int = 0
    returns: int = 0


class Recorder:
    """Records calls in `lakebed` of all threads that start after `install`, while a walk is set."""

    def __init__(self) -> None:
        self.walk: Walk | None = None
        self._last = ""
        self._lock = threading.Lock()

    def install(self) -> None:
        """Hook into this thread and all later ones. Threads of a pool live long: install before they start."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def begin(self) -> None:
        """Start a new walk."""
        self._last = ""
        self.walk = Walk(files=[])

    def end(self) -> Walk:
        """The walk since `begin`."""
        walk, self.walk = self.walk, None
        assert walk is not None
        return walk

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        walk = self.walk
        if walk is None or event != "call":
            return
        path = frame.f_code.co_filename
        if not path.startswith(_PACKAGE):
            return
        with self._lock:
            walk.calls += 1
            if path == self._last:
                return
            file = path[len(_PACKAGE) + 1 :]
            is_known = file in walk.files
            if not is_known:
                walk.files.append(file)
            if self._last:
                walk.moves += 1
                walk.returns += is_known
            self._last = path


# Events


def _events(count: int, salt: int) -> list[dict[str, Any]]:
    """Distinct events of the last days, as Segment's libraries send them."""
    now = datetime.now(UTC)
    return [
        {
            "type": "track",
            "event": ("Seen", "Bought")[number % 2],
            "userId": f"u{number % 7}",
            "anonymousId": f"a{number % 11}",
            "messageId": f"m{salt}.{number}",
            "timestamp": (now - timedelta(hours=number % 60)).isoformat(),
            "properties": {"plan": ("free", "pro")[number % 2], "revenue": number / 2},
            "context": {"userAgent": "Mozilla/5.0", "locale": "en"},
        }
        for number in range(count)
    ]


async def _fill(shop: Any) -> None:
    """Events in the archive, rollups that are up to date, and events in the log."""
    await shop.batch(_events(200, -1))
    await shop.identify("u1", {"plan": "pro"}, anonymous_id="a1")
    await shop.archive()
    await shop.rollup()
    await shop.batch(_events(50, -2))


# Journeys: each opens what it needs, and yields what is measured, and what comes before each run of it.


class Journey(msgspec.Struct, frozen=True):
    """A call whose walk is recorded.

    Attributes:
        title: as the table shows it.
        open: a context manager that gives the call, and what to do before each run of it.
        most: files that it may enter.
        process: another process that takes part.
    """

    title: str
    open: Callable[[Path], Any]
    most: int
    process: str = ""


async def _nothing() -> None:
    """Come before a run that needs no preparation."""


@asynccontextmanager
async def _shop(root: Path) -> AsyncIterator[Analytics]:
    async with Analytics(_NAME, root=root, headroom_bytes=0) as shop:
        await _fill(shop)
        yield shop


def _new_events(shop: Any) -> Run:
    """Store events before each run, so that there is something to do."""
    salt = 0

    async def store() -> None:
        nonlocal salt
        salt += 1
        await shop.batch(_events(10, salt))

    return store


@asynccontextmanager
async def _track(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _shop(root) as shop:

        async def track() -> object:
            return await shop.track("Order Completed", {"revenue": 10.5, "plan": "pro"}, user_id="u1")

        yield track, _nothing


@asynccontextmanager
async def _dau(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _shop(root) as shop:
        yield lambda: shop.dau(7), _new_events(shop)


@asynccontextmanager
async def _query(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _shop(root) as shop:
        moment = datetime.now(UTC)
        await shop.batch(_events(10, 1))
        salt = 0

        async def query() -> object:
            nonlocal salt
            salt += 1  # a statement that was parsed before is not parsed again
            return await shop.query(f"SELECT event, count(*) AS n{salt} FROM events GROUP BY event", as_of=moment)

        yield query, _nothing


@asynccontextmanager
async def _funnel(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _shop(root) as shop:
        yield lambda: shop.funnel(["Seen", "Bought"], within="1d"), _nothing


@asynccontextmanager
async def _archive(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _shop(root) as shop:
        yield shop.archive, _new_events(shop)


def _key(root: Path, scope: str) -> str:
    """A new key, made as an operator makes one."""
    command = [
        sys.executable,
        "-m",
        "lakebed",
        "keys",
        "create",
        scope,
        "--root",
        str(root),
        "--object",
        _NAME,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return str(next(value for value in json.loads(done.stdout).values() if str(value).startswith("lb")))


@asynccontextmanager
async def _server(root: Path) -> AsyncIterator[str]:
    """A namespace behind the HTTP server, in this loop; gives its address."""
    async with Namespace(root, Analytics, headroom_bytes=0) as namespace:
        await _fill(namespace.get(_NAME))
        config = uvicorn.Config(create_app(namespace), port=0, log_config=None, access_log=False, lifespan="on")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())  # noqa: SLF001 - `serve` would take over the signals
        while not server.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def _post(client: httpx.AsyncClient, path: str, document: object) -> None:
    response = await client.post(path, json=document)
    assert response.status_code == 200, response.text


@asynccontextmanager
async def _client(root: Path, scope: str) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        key = _key(root, scope)
        url = await stack.enter_async_context(_server(root))
        headers = {"Authorization": f"Bearer {key}"}
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=60))


@asynccontextmanager
async def _batch(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    async with _client(root, "write") as client:
        salt = 0

        async def post() -> None:
            nonlocal salt
            salt += 1
            await _post(client, "/v1/batch", {"batch": _events(50, salt), "sentAt": datetime.now(UTC).isoformat()})

        yield post, _nothing


@asynccontextmanager
async def _http_funnel(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    document = {"steps": ["Seen", "Bought"], "within": "1d"}
    async with _client(root, "read") as client:
        yield lambda: _post(client, "/reports/funnel", document), _nothing


@asynccontextmanager
async def _rpc(root: Path) -> AsyncIterator[tuple[Run, Run]]:
    key = _key(root, "read")
    async with _server(root) as url, Namespace.connect(url, key=key) as remote:
        yield lambda: remote.Analytics(_NAME).dau(7), _nothing


JOURNEYS = {
    "track": Journey("`track()`, awaited", _track, 14),
    "batch": Journey("`POST /v1/batch`, 50 events, namespace, key", _batch, 28),
    "dau": Journey("`dau(7)` after new events", _dau, 18),
    "query": Journey("`query(as_of=)`", _query, 21),
    "funnel": Journey("`funnel()` in Python", _funnel, 32),
    "http-funnel": Journey("`POST /reports/funnel`, namespace, key", _http_funnel, 38, "the sandbox child"),
    "archive": Journey("`archive()`", _archive, 32),
    "rpc": Journey("`dau(7)` over `/rpc`, both ends", _rpc, 30),
}


async def walk_of(journey: Journey, recorder: Recorder, root: Path) -> Walk:
    """Run a journey until it is warm, then once more, and give that walk."""
    async with journey.open(root) as (run, before):
        for _ in range(_WARM):
            await before()
            await run()
        await before()
        await asyncio.sleep(0.3)  # what runs are followed by is over, and not part of the next
        recorder.begin()
        await run()
        return recorder.end()


def grouped(files: Sequence[str]) -> str:
    """Paths in order, those of one folder in a row together: `a > tiers/{b, c}`."""
    groups: list[tuple[str, list[str]]] = []
    for file in files:
        folder, _, name = file.removesuffix(".py").rpartition("/")
        if not groups or groups[-1][0] != folder:
            groups.append((folder, []))
        groups[-1][1].append(name)
    texts = []
    for folder, names in groups:
        if folder:
            texts.append(f"{folder}/{names[0]}" if len(names) == 1 else f"{folder}/{{{', '.join(names)}}}")
        else:
            texts += names
    return " > ".join(texts)


def markdown(walks: dict[str, Walk]) -> str:
    """The table, then the files of each journey."""
    lines = [
        "| journey | files | at most | calls | moves | returns to a file already left |",
        "|---|---|---|---|---|---|",
    ]
    for name, walk in walks.items():
        journey = JOURNEYS[name]
        files = f"{len(walk.files)} (+ {journey.process})" if journey.process else f"{len(walk.files)}"
        lines.append(
            f"| {journey.title} | {files} | {journey.most} | {walk.calls:,} | {walk.moves:,} | {walk.returns:,} |"
        )
    for name, walk in walks.items():
        lines += ["", f"**{JOURNEYS[name].title}**: {grouped(walk.files)}"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Record the journeys, each in a new root and loop, and print them. Returns 1 when `--check` finds one too long."""
    parser = argparse.ArgumentParser(prog="python -m bench.walks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="JOURNEY", help=f"of {', '.join(JOURNEYS)}; all by default")
    parser.add_argument("--json", type=Path, help="where the walks go too")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a journey enters more files than it may")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(JOURNEYS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(JOURNEYS)}")
    recorder = Recorder()
    recorder.install()
    walks = {}
    for name in arguments.names or JOURNEYS:
        with tempfile.TemporaryDirectory(prefix="walks-") as root:
            walks[name] = asyncio.run(walk_of(JOURNEYS[name], recorder, Path(root)))
    print(markdown(walks))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(walks)))
    return int(arguments.check and any(len(walk.files) > JOURNEYS[name].most for name, walk in walks.items()))


if __name__ == "__main__":
    sys.exit(main())
