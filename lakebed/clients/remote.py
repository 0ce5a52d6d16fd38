"""A running server, asked over HTTP with the standard library: the CLI needs no HTTP client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

import msgspec

from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.output import Table
from lakebed.rpc.capnweb.exported_object import camel

__all__ = ["Remote"]

_TIMEOUT_S = 90.0  # longer than a query may take by default
_TOO_MANY = 429
_SERVER = 500


class _Answered(Failure):
    """What the server says is wrong: `said` for programs, `reason` for people."""

    def __init__(self, status: int, said: str, reason: str) -> None:
        unavailable = status >= _SERVER or status == _TOO_MANY
        super().__init__(f"the server answers {status}: {reason}", code=Exit.UNAVAILABLE if unavailable else Exit.USAGE)
        self.said = said
        self.reason = reason


class Remote:
    """The object that `key` belongs to, through the server at `url`."""

    def __init__(self, url: str, key: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise Failure(f"{url!r} is not a server's address", hint="It begins with http:// or https://")
        self._url = url.rstrip("/")
        self._key = key

    def track(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Store one event."""
        try:
            found: dict[str, Any] = self.ask("POST", "/track", event)
        except _Answered as error:
            if error.said != "INVALID_EVENT":
                raise
            return {"messageId": event.get("messageId"), "status": "rejected", "seq": None, "reason": error.reason}
        return found

    def query(self, sql: str, params: Any = None, **options: Any) -> Table:
        """The rows of one SELECT. The server holds it to its own limits too."""
        asked = {"sql": sql, "params": params, **options}
        return _table(self.ask("POST", "/query", {name: value for name, value in asked.items() if value is not None}))

    def report(self, name: str, arguments: Mapping[str, Any]) -> Table:
        """The rows of a report."""
        return _table(self.ask("POST", f"/reports/{name}", arguments))

    def template(self, name: str, params: Mapping[str, Any]) -> Table:
        """The rows of a template."""
        return _table(self.ask("POST", f"/templates/{quote(name, safe='')}", params))

    def stats(self) -> dict[str, Any]:
        """The live counters."""
        found: dict[str, Any] = self.ask("GET", "/stats")
        return found

    def dau(self, days: int) -> Table:
        """Rows `date, dau, events`."""
        return Table.of(self.ask("GET", f"/dau?days={days}"), ("date", "dau", "events"))

    def letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Dead letters, newest first."""
        found = self.ask("GET", "/deadletters", limit=limit, before=before, reason=reason)
        letters: list[dict[str, Any]] = found["letters"]
        return letters

    def letter(self, letter_id: int) -> dict[str, Any]:
        """One dead letter."""
        found: dict[str, Any] = self.ask("GET", f"/deadletters/{letter_id}")
        return found

    def replay(self, ids: list[int] | None, edit: Any) -> list[dict[str, Any]]:
        """Store letters."""
        how = {} if edit is None else {"text" if isinstance(edit, str) else "patch": edit}
        letters: list[dict[str, Any]] = self.ask("POST", "/deadletters/replay", how | ({"ids": ids} if ids else {}))[
            "letters"
        ]
        return letters

    def purge(self, ids: list[int] | None, *, before: datetime | None) -> int:
        """Delete letters."""
        query = urlencode(
            [("id", one) for one in ids or ()] or {"before": "" if before is None else before.isoformat()}
        )
        return int(self.ask("DELETE", f"/deadletters?{query}")["purged"])

    def person(self, person_id: str, as_of: str | None) -> dict[str, Any] | None:
        """Who has that id."""
        found: dict[str, Any] | None = self.ask("GET", f"/people/{quote(person_id, safe='')}", as_of=as_of)
        return found

    def merge(self, a: str, b: str, why: str | None) -> dict[str, Any]:
        """Make one person of two."""
        found: dict[str, Any] = self.ask("POST", "/people/merge", {"a": a, "b": b, "why": why})
        return found

    def unmerge(self, merge_id: str, why: str | None) -> dict[str, Any]:
        """Take a merge back."""
        found: dict[str, Any] = self.ask("POST", "/people/unmerge", {"merge_id": merge_id, "why": why})
        return found

    def merges(self, person_id: str | None, limit: int) -> list[dict[str, Any]]:
        """The audit."""
        found: list[dict[str, Any]] = self.ask("GET", "/people/merges", id=person_id, limit=limit)
        return found

    def save_cohort(self, name: str, definition: Any) -> dict[str, Any]:
        """Save a cohort."""
        found: dict[str, Any] = self.ask("PUT", f"/cohorts/{quote(name, safe='')}", definition)
        return found

    def cohorts(self) -> list[dict[str, Any]]:
        """The saved cohorts."""
        found: list[dict[str, Any]] = self.ask("GET", "/cohorts")
        return found

    def cohort(self, name: str) -> dict[str, Any]:
        """One of them, with its size."""
        found: dict[str, Any] = self.ask("GET", f"/cohorts/{quote(name, safe='')}")
        return found

    def delete_cohort(self, name: str) -> None:
        """Let one go."""
        self.ask("DELETE", f"/cohorts/{quote(name, safe='')}")

    def invoice(self, organization_id: str, period: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The invoice of a month."""
        asked = {"organizationId": organization_id, "period": period}
        found: dict[str, Any] = self.ask("POST", "/billing/invoices", asked | _camel(options))
        return found

    def invoices(self, organization_id: str | None) -> list[dict[str, Any]]:
        """Those that were issued."""
        found: list[dict[str, Any]] = self.ask("GET", "/billing/invoices", organizationId=organization_id)
        return found

    def save_price_book(self, name: str, document: Any) -> dict[str, Any]:
        """Save a price book."""
        found: dict[str, Any] = self.ask("PUT", f"/billing/price-books/{quote(name, safe='')}", document)
        return found

    def price_books(self) -> list[dict[str, Any]]:
        """The newest version of each."""
        found: list[dict[str, Any]] = self.ask("GET", "/billing/price-books")
        return found

    def save_quota(self, organization_id: str, sku: str, options: Mapping[str, Any]) -> None:
        """Save a quota."""
        self.ask("PUT", "/billing/quotas", {"organizationId": organization_id, "sku": sku} | _camel(options))

    def quotas(self, organization_id: str | None) -> list[dict[str, Any]]:
        """How far each is used."""
        found: list[dict[str, Any]] = self.ask("GET", "/billing/quotas", organizationId=organization_id)
        return found

    def save_dataset(self, name: str, mapping: Any) -> dict[str, Any]:
        """Save a mapping."""
        found: dict[str, Any] = self.ask("PUT", f"/datasets/{quote(name, safe='')}", mapping)
        return found

    def datasets(self) -> list[dict[str, Any]]:
        """The saved mappings."""
        found: list[dict[str, Any]] = self.ask("GET", "/datasets")
        return found

    def dataset(self, name: str) -> dict[str, Any]:
        """One of them."""
        found: dict[str, Any] = self.ask("GET", f"/datasets/{quote(name, safe='')}")
        return found

    def delete_dataset(self, name: str) -> None:
        """Let one go."""
        self.ask("DELETE", f"/datasets/{quote(name, safe='')}")

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


def _camel(options: Mapping[str, Any]) -> dict[str, Any]:
    return {camel(name): value for name, value in options.items()}


def _table(found: Mapping[str, Any]) -> Table:
    rows = found["rows"]
    many = "row" if len(rows) == 1 else "rows"
    origin = f"{len(rows):,} {many} from {' + '.join(found['tiers']) or 'no tier'} in {found['ms']:.0f} ms"
    return Table([column["name"] for column in found["columns"]], rows, origin)


def _refused(error: HTTPError) -> Failure:
    try:
        told = msgspec.json.decode(error.read())["error"]
        return _Answered(error.code, told["code"], told["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return _Answered(error.code, "", error.reason)
