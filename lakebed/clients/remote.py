"""RemoteClient: the verbs of an object on a server. Needs the extra: `pip install 'lakebed[client]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Self
from urllib.parse import quote, urlsplit

import msgspec

from lakebed.clients.client import Table
from lakebed.errors import AccessDenied, Backpressure, InvalidSettings, LakebedError, Unreachable
from lakebed.interface.verbs import VERBS
from lakebed.objects.remote_namespace import RemoteNamespace

__all__ = ["RemoteClient"]

_TIMEOUT_S = 90.0  # longer than the time limit of queries by default
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _SERVER_ERROR = 400, 401, 403, 429, 500
# The errors that RPC raises for arguments that the server does not accept.
_ARGUMENT_ERRORS = (TypeError, ValueError, LookupError, OverflowError)


class RemoteClient:
    """The verbs of the object that `key` is for, by RPC. A context manager.

    Two kinds of answer come by HTTP: tables, which may have 64 MiB by HTTP and 8 MiB by RPC, and lists of dead letters,
    which RPC sends whole and HTTP as previews.

    Args:
        url: the server's address, `http://` or `https://`.
        key: the API key; empty for a server without keys.

    Raises:
        InvalidSettings: the address has another form.
        ImportError: httpx is not installed.

    Its methods raise LakebedError with the server's message: AccessDenied for 401 and 403, Backpressure for 429,
    Unreachable for other failures of the server, and if the server does not answer.
    """

    def __init__(self, url: str, key: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidSettings(f"{url!r} is not a server's address", hint="Begin it with http:// or https://")
        self._url = url.rstrip("/")
        self._namespace = RemoteNamespace(url, key=key or None, timeout_s=_TIMEOUT_S)
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(headers=headers | {"Accept": "application/json"}, timeout=_TIMEOUT_S)
        self._http_error = httpx.HTTPError
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._http), self._runner:
            self._runner.run(self._namespace.close())

    def call(self, verb: str, *positional: Any, **named: Any) -> Any:
        """Implements `Client.call`."""
        return self._runner.run(self._called(VERBS[verb].name, positional, named))

    async def _called(self, verb: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            return await getattr(self._namespace.get(), verb)(*positional, **named)
        except LakebedError as error:
            if "status" in error.facts:
                raise _error(error.facts["status"], error.facts.get("code", ""), str(error)) from error
            if isinstance(error, Unreachable):
                raise self._unreachable(error.message) from error
            raise
        except _ARGUMENT_ERRORS as error:
            raise _error(_BAD_REQUEST, "INVALID_CALL", str(error)) from error

    def table(self, verb: str, *positional: Any, **named: Any) -> Table:
        """Implements `Client.table`."""
        if verb == "template":
            name, params = positional
            answer = self._asked("POST", f"/templates/{quote(name, safe='')}", params)
        elif VERBS[verb].is_report:
            answer = self._asked("POST", f"/reports/{verb}", named)
        else:
            arguments = dict(zip(("sql", "params"), positional, strict=False)) | named
            answer = self._asked("POST", f"/{verb}", _without_none(arguments))
        columns = [column["name"] for column in answer["columns"]]
        return Table.answered(columns, answer["rows"], answer["tiers"], answer["ms"])

    def track(self, event: Mapping[str, Any]) -> Any:
        """Implements `Client.track`."""
        return self.call("batch", [event])[0]

    def dead_letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Implements `Client.dead_letters`."""
        page = self._asked("GET", "/deadletters", **_without_none({"limit": limit, "before": before, "reason": reason}))
        dead_letters: list[dict[str, Any]] = page["letters"]
        return dead_letters

    def _asked(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """Send a request, and return the JSON of the answer."""
        try:
            content = None if body is None else msgspec.json.encode(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            response = self._http.request(method, self._url + path, content=content, headers=headers, params=parameters)
        except self._http_error as error:
            raise self._unreachable(f"{error or type(error).__name__}") from error
        if not response.is_success:
            raise _refused(response)
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._url} does not answer in JSON: {error}") from error

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(f"{self._url} cannot be reached: {reason}", hint="Is `lakebed serve` running there?")


def _without_none(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _refused(response: Any) -> LakebedError:
    try:
        fault = msgspec.json.decode(response.content)["error"]
        return _error(response.status_code, fault["code"], fault["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return _error(response.status_code, "", response.reason_phrase)


def _error(status: int, code: str, reason: str) -> LakebedError:
    """The error to raise for an HTTP status, or for an RPC error that has an HTTP status."""
    kind: type[LakebedError] = LakebedError
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        kind = AccessDenied
    elif status == _TOO_MANY:
        kind = Backpressure
    elif status >= _SERVER_ERROR:
        kind = Unreachable
    return kind(f"the server answers {status}: {reason}", status=status, code=code)
