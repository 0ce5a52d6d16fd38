"""A local Redis (or Valkey) of our own on a Unix socket, spoken to by redis-py with hiredis, as its pages advise."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.measure import Absent

WAIT_S = 10.0


class Server:
    """A server with `appendfsync` always (each write is on the disk), or with no file at all."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise Absent("no redis-server: apt-get install redis-server")
        try:
            import redis  # an optional extra
        except ImportError as error:
            raise Absent("redis is not installed: pip install 'lakebed[bench]'") from error
        directory.mkdir(parents=True, exist_ok=True)
        socket = Path("/tmp") / f"lakebed-bench-{id(self):x}-{directory.stat().st_ino}.sock"  # noqa: S108 - paths of sockets are short
        saving = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self._process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", "", *saving],
            stdout=subprocess.DEVNULL,
        )
        self.client: Any = redis.Redis(unix_socket_path=str(socket))
        self._socket = socket
        self._wait(redis.ConnectionError)

    def _wait(self, not_yet: type[Exception]) -> None:
        until = time.monotonic() + WAIT_S
        while True:
            try:
                self.client.ping()
            except not_yet:
                if time.monotonic() > until:
                    self.close()
                    raise
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        """Stop the server."""
        self.client.close()
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)
