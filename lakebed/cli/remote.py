"""A running server, asked over HTTP with the standard library: the CLI needs no HTTP client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

import msgspec

from lakebed.cli.failure import Exit, Failure
from lakebed.cli.output import Table

__all__ = ["Remote"]

_TIMEOUT_S = 90.0  # longer than a query may take by default
_TOO_MANY = 429
_SERVER = 500


class Remote:
    """The object that `key` belongs to, through the server at `url`."""

    def __init__(self, url: str, key: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise Failure(f"{url!r} is not a server's address", hint="It begins with http:// or https://")
        self._url = url.rstrip("/")
        self._key = key

    def track(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Store one event."""
        found: dict[str, Any] = self.ask("POST", "/track", event)
        return found

    def query(self, sql: str, params: Any = None, **options: Any) -> Table:
        """The rows of one SELECT. The server holds it to its own limits too."""
        asked = {"sql": sql, "params": params, **options}
        found = self.ask("POST", "/query", {name: value for name, value in asked.items() if value is not None})
        return Table(found["columns"], found["rows"])

    def stats(self) -> dict[str, Any]:
        """The live counters."""
        found: dict[str, Any] = self.ask("GET", "/stats")
        return found

    def dau(self, days: int) -> Table:
        """Rows `date, dau, events`."""
        return Table.of(self.ask("GET", f"/dau?days={days}"), ("date", "dau", "events"))

    def ask(self, method: str, path: str, body: Any = None, **parameters: str | int | None) -> Any:
        """The JSON that the server answers.

        Raises:
            Failure: the server's own words, or that it cannot be reached.
        """
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else msgspec.json.encode(body)
        request = Request(  # noqa: S310 - http and https only, checked above
            self._url + path + (f"?{query}" if query else ""), data, headers, method=method
        )
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the same
                return msgspec.json.decode(answer.read() or b"null")
        except HTTPError as error:
            raise _refused(error) from None
        except msgspec.DecodeError as error:
            raise Failure(f"{self._url} does not answer in JSON: {error}", code=Exit.UNAVAILABLE) from None
        except (URLError, OSError) as error:
            why = getattr(error, "reason", error)
            raise Failure(
                f"{self._url} cannot be reached: {why}",
                hint="Is `lakebed serve` running there?",
                code=Exit.UNAVAILABLE,
            ) from None


def path_of(*parts: str) -> str:
    """A path with `parts` as they are, whatever characters they have."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _refused(error: HTTPError) -> Failure:
    try:
        said = msgspec.json.decode(error.read())["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        said = error.reason
    unavailable = error.code >= _SERVER or error.code == _TOO_MANY
    return Failure(f"the server answers {error.code}: {said}", code=Exit.UNAVAILABLE if unavailable else Exit.USAGE)
