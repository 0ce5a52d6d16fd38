"""The front door as a process: python -m bench.front ROOT PORT. Beside the app, `/empty/…` answers an empty 200.

With it, what drives it: `wrk`, a program of its own, so that the server has a core to itself.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bench import memory
from bench.lake import NAME, PROMOTE
from bench.measure import Absent, Figures
from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.server import serve

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
# Every event needs a message id of its own: a body that is sent again would be all duplicates.
_LUA = """
local bodies, keys, made = {bodies}, {keys}, 0
math.randomseed(os.time() + {seed})
local salt = string.format("%06x", math.random(0, 0xffffff))
function request()
  made = made + 1
  local body = bodies[made % #bodies + 1]
  body = string.gsub(body, "@@@@@@@@@@@@", salt .. string.format("%06x", made))
  local headers = {{["Content-Type"] = "application/json"}}
  if #keys > 0 then headers["X-API-Key"] = keys[math.random(#keys)] end
  return wrk.format("POST", nil, headers, body)
end
"""


class Front:
    """The server's process, over the object `bench` or over a namespace of tenants."""

    def __init__(self, root: Path, *, tenants: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = [sys.executable, "-m", "bench.front", str(root), str(self.port), *(["tenants"] if tenants else [])]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.post("/empty/", b"")
        except OSError:
            return False
        return True

    def post(self, path: str, body: bytes, key: str = "") -> None:
        """One request, which must succeed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"X-API-Key": key} if key else {})
        status = connection.getresponse().status
        connection.close()
        assert status == 200, f"{path}: {status}"

    def load(
        self, path: str, bodies: list[bytes], connections: int, seconds: float, keys: tuple[str, ...] = ()
    ) -> Figures:
        """Requests a second, and p50 and p99 in ms, while so many connections each wait for their answer."""
        wrk = shutil.which("wrk")
        if wrk is None:
            raise Absent("wrk is not installed")
        lists = [
            "{" + ",".join(f"[==[{text}]==]" for text in texts) + "}" for texts in ([b.decode() for b in bodies], keys)
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(_LUA.format(bodies=lists[0], keys=lists[1], seed=time.monotonic_ns() % 1_000_003))
            script.flush()
            options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}", "--latency", "-s", script.name]
            url = f"http://127.0.0.1:{self.port}{path}"
            done = subprocess.run([wrk, *options, url], capture_output=True, text=True, check=True)
        return _read(done.stdout)

    def resident_bytes(self) -> int:
        """Of the server's process."""
        return memory.resident_bytes(self._process.pid)

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(60)


def _read(output: str) -> Figures:
    """The figures in wrk's output. One response other than 200 makes the run worthless."""
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    figures = {"rate": rate}
    for share in (50, 99):
        value, unit = re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s|m)", output).groups()
        figures[f"p{share}"] = float(value) * _UNITS[unit]
    return figures


class _Beside:
    """The app, and beside it, on the same server, a route that does nothing."""

    def __init__(self, app: Starlette) -> None:
        self.app, self.state = app, app.state
        self._nothing = Starlette(routes=[Route("/empty/{path:path}", _empty, methods=["POST"])])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        empty = scope["type"] == "http" and scope["path"].startswith("/empty/")
        await (self._nothing if empty else self.app)(scope, receive, send)


async def _empty(request: Request) -> Response:
    await request.body()
    return Response()


def main() -> None:
    """Serve until told to stop."""
    root, port, *tenants = sys.argv[1:]
    target = Namespace(root, Analytics) if tenants else Analytics(NAME, root=root, promote=PROMOTE)
    serve(_Beside(create_app(target)), port=int(port), log_level="WARNING")


if __name__ == "__main__":
    main()
