"""Which server carries the app: uvicorn and granian, each with uvloop, one process, the same app and disk.

    python -m bench.servers [--seconds 4] [--rounds 3]

Needs `wrk` on the PATH and granian. The servers take turns, so that a slow minute of the machine hits both;
the median of the rounds is shown. docs/decisions/0010 has figures and what was decided by them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

SERVERS = ("uvicorn", "granian")
_EVENT = '{"event":"Seen","userId":"u1","properties":{"page":"/","price":9.5},"context":{"locale":"en"}}'
_POST = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[%s]==]\n'
_WORK = {  # path, body, events a request
    "empty 200": ("/empty", _EVENT, 1),
    "durable /track": ("/app/track", _EVENT, 1),
    "durable batch of 100": ("/app/track/batch", "[" + ",".join([_EVENT] * 100) + "]", 100),
}


def app() -> Starlette:
    """The app over one object in the directory that the environment names, beside a route that does nothing."""
    from lakebed import Analytics  # only the server's process needs it
    from lakebed.api import create_app

    analytics = Analytics("bench", root=os.environ["BENCH_ROOT"])

    async def empty(_request: object) -> Response:
        return Response()

    routes = [Route("/empty", empty, methods=["GET", "POST"]), Mount("/app", create_app(analytics))]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with analytics:
            yield

    return Starlette(routes=routes, lifespan=lifespan)


def serve(server: str, port: int) -> None:
    """Run `server` in this process."""
    if server == "uvicorn":
        from lakebed.api import serve as serve_it

        serve_it(app(), port=port, log_level="WARNING")
    else:
        import granian  # measured, not used

        options = {"interface": "asgi", "workers": 1, "loop": "uvloop", "factory": True, "log_enabled": False}
        granian.Granian("bench.servers:app", address="127.0.0.1", port=port, **options).serve()


@contextmanager
def running(server: str) -> Iterator[int]:
    """A process of `server` on a port."""
    root = tempfile.mkdtemp(prefix="lakebed-bench-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"BENCH_ROOT": root}
    arguments = [sys.executable, "-m", "bench.servers", "--serve", server, "--port", str(port)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, f"{server} does not answer"
            time.sleep(0.05)
        yield port
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    shutil.rmtree(root)


def measured(port: int, path: str, body: str, connections: int, seconds: int) -> tuple[float, float]:
    """Requests a second, and their 99th percentile in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_POST % body)
        script.flush()
        arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name]
        url = f"http://127.0.0.1:{port}{path}"
        output = subprocess.run([*arguments, url], check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in output, output
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    slowest = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", output)
    assert rate is not None, output
    assert slowest is not None, output
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}[slowest[2]]
    return float(rate[1]), float(slowest[1]) * unit


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=SERVERS)
    parser.add_argument("--port", type=int, default=0)
    parsed = parser.parse_args()
    if parsed.serve:
        serve(parsed.serve, parsed.port)
        return
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(parsed.rounds):
        for server in SERVERS:
            with running(server) as port:
                for work, (path, body, events) in _WORK.items():
                    connections = 64 if events == 1 else 8
                    results.setdefault((work, server), []).append(
                        measured(port, path, body, connections, parsed.seconds)
                    )
    print(f"| work | {' | '.join(f'{server}: requests/s, p99 ms' for server in SERVERS)} |\n|---|---|---|")
    for work in _WORK:
        rows = [results[work, server] for server in SERVERS]
        cells = [
            f"{statistics.median(rate for rate, _ in row):,.0f}, {statistics.median(slow for _, slow in row):.1f}"
            for row in rows
        ]
        print(f"| {work} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
