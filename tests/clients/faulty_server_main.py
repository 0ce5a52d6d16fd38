"""The process of a `Door`: python doorway.py ROOT PORT. The app, behind what loses its answers when asked to."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.server import make_server
from tests.clients.faulty_server import EVENTS, FAULTS


class Doorway:
    """Everything passes, but POSTs to /v1/ for which a fault is waiting."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._app = create_app(namespace)
        self._faults: list[dict[str, Any]] = []
        self._posts: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        path, method = scope.get("path", ""), scope.get("method")
        if path == FAULTS:
            body = await _body(receive)
            self._faults = json.loads(body) if body else self._faults
            await _answer(send, 200, {"left": len(self._faults), "posts": self._posts})
        elif path == EVENTS:
            name = scope["query_string"].decode().partition("=")[2]
            result = await self._namespace.get(name).query("SELECT * FROM events ORDER BY seq")
            await _answer(send, 200, [row._asdict() for row in result.rows])
        elif method == "POST" and path.startswith("/v1/"):
            self._posts.append(path)
            if self._faults:
                await self._fail(self._faults.pop(0), scope, receive, send)
            else:
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _fail(self, fault, scope, receive, send) -> None:
        answers: list[dict[str, Any]] = []
        if fault.get("store"):

            async def keep(message):
                answers.append(message)

            await self._app(scope, receive, keep)
            assert answers[0]["status"] == 200, answers
        else:
            await _body(receive)
        if fault.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.get("cut"):
            send.__self__.transport.abort()
            return
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
        await _answer(send, fault["status"], {"error": {}}, headers | fault.get("headers", {}))


async def _body(receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send, status, value, headers=()) -> None:
    encoded = [(name.lower().encode(), text.encode()) for name, text in dict(headers).items()]
    encoded.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": json.dumps(value, default=str).encode()})


if __name__ == "__main__":
    make_server(Doorway(Namespace(Path(sys.argv[1]), Analytics)), port=int(sys.argv[2]), log_level="warning").run()
