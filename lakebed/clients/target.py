"""Who answers a command: an object opened here, or a server that has it open."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lakebed.analytics import Analytics
from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.output import Table
from lakebed.clients.http import Remote
from lakebed.errors import ObjectLocked
from lakebed.objects.manifest import Manifest
from lakebed.objects.names import directory_of
from lakebed.objects.registry import classes
from lakebed.objects.sync import connect

__all__ = ["Place", "Target"]


class Target(Protocol):
    """What can be asked of both."""

    def track(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Store one event, in Segment's names. Its receipt: `seq`, `messageId`, `status`, `reason`."""
        ...

    def query(self, sql: str, params: Any = None, **options: Any) -> Table:
        """The rows of one SELECT; `options` are `as_of`, `limit`, `timeout`."""
        ...

    def stats(self) -> dict[str, Any]:
        """The live counters."""
        ...

    def dau(self, days: int) -> Table:
        """Rows `date, dau, events`."""
        ...

    def report(self, name: str, arguments: Mapping[str, Any]) -> Table:
        """The rows of a report."""
        ...

    def template(self, name: str, params: Mapping[str, Any]) -> Table:
        """The rows of a template."""
        ...

    def letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Dead letters, newest first, each with a preview of what was sent."""
        ...

    def letter(self, letter_id: int) -> dict[str, Any]:
        """One dead letter with all that was sent."""
        ...

    def replay(self, ids: list[int] | None, edit: Any) -> list[dict[str, Any]]:
        """Store letters, as they are or mended: what became of each."""
        ...

    def purge(self, ids: list[int] | None, *, before: datetime | None) -> int:
        """Delete letters. How many."""
        ...

    def person(self, person_id: str, as_of: str | None) -> dict[str, Any] | None:
        """Who has that id."""
        ...

    def merge(self, a: str, b: str, why: str | None) -> dict[str, Any]:
        """Make one person of two."""
        ...

    def unmerge(self, merge_id: str, why: str | None) -> dict[str, Any]:
        """Take a merge back."""
        ...

    def merges(self, person_id: str | None, limit: int) -> list[dict[str, Any]]:
        """The audit, newest first."""
        ...

    def save_cohort(self, name: str, definition: Any) -> dict[str, Any]:
        """Save a cohort: `name`, `version`, `savedAt`, `definition`."""
        ...

    def cohorts(self) -> list[dict[str, Any]]:
        """The saved cohorts, by name."""
        ...

    def cohort(self, name: str) -> dict[str, Any]:
        """One of them, with `people`, its size."""
        ...

    def delete_cohort(self, name: str) -> None:
        """Let one go."""
        ...

    def invoice(self, organization_id: str, period: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The invoice of a month, its decimals as text; `options` as `Analytics.invoice` takes them."""
        ...

    def invoices(self, organization_id: str | None) -> list[dict[str, Any]]:
        """Those that were issued."""
        ...

    def save_price_book(self, name: str, document: Any) -> dict[str, Any]:
        """Save a price book: `name`, `version`, `savedAt`, `document`."""
        ...

    def price_books(self) -> list[dict[str, Any]]:
        """The newest version of each."""
        ...

    def save_quota(self, organization_id: str, sku: str, options: Mapping[str, Any]) -> None:
        """Save a quota; `options` as `Analytics.save_quota` takes them, with the limit."""
        ...

    def quotas(self, organization_id: str | None) -> list[dict[str, Any]]:
        """How far each is used, its decimals as text."""
        ...

    def save_dataset(self, name: str, mapping: Any) -> dict[str, Any]:
        """Save a mapping: `name`, `version`, `savedAt`, `mapping`."""
        ...

    def datasets(self) -> list[dict[str, Any]]:
        """The saved mappings, by name."""
        ...

    def dataset(self, name: str) -> dict[str, Any]:
        """One of them."""
        ...

    def delete_dataset(self, name: str) -> None:
        """Let one go."""
        ...


class Place(msgspec.Struct, frozen=True):
    """Where an object is, as options said it."""

    root: Path
    name: str
    class_name: str = ""
    url: str = ""
    key: str = ""

    @contextmanager
    def target(self, *, make: bool = False, trusting: bool = True) -> Iterator[Target]:
        """The server at `url`, if that was given; else the object itself.

        Args:
            make: an object that does not exist is made.
            trusting: SQL is the user's own; else it runs in the sandbox. A server never trusts it.

        Raises:
            Failure: there is no such object.
            ObjectLocked: another process has it open; the message says how to ask that.
        """
        if self.url:
            yield Remote(self.url, self.key)
            return
        with self.local(make=make) as connection:
            yield Local(connection, trusting=trusting)

    @contextmanager
    def local(self, *, make: bool = False) -> Iterator[Any]:
        """The object itself, as `connect` gives it. Raises what `target` raises."""
        object_class = self.object_class(make=make)
        try:
            connection = connect(self.root, self.name, object_class)
        except ObjectLocked as error:
            raise locked(error) from None
        with connection:
            yield connection

    def object_class(self, *, make: bool = False) -> type[Any]:
        """The class to open the object as: the one asked for, else the one that it was last opened as, if known here.

        Raises:
            Failure: there is no such object, and `make` was not said; or the class cannot be imported.
        """
        plate = Manifest.read(directory_of(self.root, self.name))
        if plate is None and not make:
            raise Failure(
                f"there is no object {self.name!r} under {self.root}",
                hint="--root and --object say where it is; `lakebed objects` lists what is there",
            )
        if self.class_name:
            return imported(self.class_name)
        return Analytics if plate is None else classes.get(plate.kind, Analytics)


def locked(error: ObjectLocked) -> Failure:
    """How to reach an object that another process has open."""
    return Failure(
        error.message,
        hint="If that is a server, ask it: --url http://127.0.0.1:8080 --key … (LAKEBED_URL, LAKEBED_KEY). "
        "Or stop it first",
        code=Exit.UNAVAILABLE,
    )


def imported(name: str) -> type[Any]:
    """The class that `module:Class` names, from the working directory or what is installed.

    Raises:
        Failure: there is none.
    """
    module_name, _, class_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Failure(f"{name!r} is not a class that can be imported: {error}", hint="Say it as module:Class") from None
    if not isinstance(found, type):
        raise Failure(f"{name!r} is not a class", hint="Say it as module:Class")
    return found


class Local:
    """An object opened in this process."""

    def __init__(self, connection: Any, *, trusting: bool = True) -> None:
        self._object = connection
        self._trusting = trusting

    def track(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Store one event."""
        receipt = self._object.batch([event], source="cli")[0]
        found = {"messageId": receipt.message_id, "status": receipt.status, "seq": receipt.seq}
        return found | ({"reason": receipt.reason} if receipt.reason else {})

    def query(self, sql: str, params: Any = None, **options: Any) -> Table:
        """The rows of one SELECT."""
        ask = self._object.query if self._trusting else self._object.query_untrusted
        return _table(ask(sql, params, **options))

    def stats(self) -> dict[str, Any]:
        """The live counters."""
        found: dict[str, Any] = msgspec.to_builtins(self._object.stats())
        return found

    def dau(self, days: int) -> Table:
        """Rows `date, dau, events`."""
        return _table(self._object.dau(days))

    def report(self, name: str, arguments: Mapping[str, Any]) -> Table:
        """The rows of a report."""
        if not self._trusting:
            return _table(self._object.report_untrusted(name, arguments))
        return _table(getattr(self._object, name)(**arguments))

    def template(self, name: str, params: Mapping[str, Any]) -> Table:
        """The rows of a template."""
        return _table(self._object.template(name, params))

    def letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Dead letters, newest first."""
        return [_line(one) for one in self._object.dead_letters(limit=limit, before=before, reason=reason)]

    def letter(self, letter_id: int) -> dict[str, Any]:
        """One dead letter."""
        found = self._object.dead_letter(letter_id)
        whole = {"raw": found.raw.decode("utf-8", "backslashreplace"), "cut": found.is_cut, "replayId": found.replay_id}
        return _line(found) | whole | {"shared": found.shared.decode()}

    def replay(self, ids: list[int] | None, edit: Any) -> list[dict[str, Any]]:
        """Store letters."""
        return [_camel(msgspec.structs.asdict(one)) for one in self._object.replay(ids, edit)]

    def purge(self, ids: list[int] | None, *, before: datetime | None) -> int:
        """Delete letters."""
        return int(self._object.purge(ids, before=before))

    def person(self, person_id: str, as_of: str | None) -> dict[str, Any] | None:
        """Who has that id."""
        return _plain(self._object.person(person_id, as_of=as_of))

    def merge(self, a: str, b: str, why: str | None) -> dict[str, Any]:
        """Make one person of two."""
        return _plain(self._object.merge(a, b, why=why)) or {}

    def unmerge(self, merge_id: str, why: str | None) -> dict[str, Any]:
        """Take a merge back."""
        return _plain(self._object.unmerge(merge_id, why=why)) or {}

    def merges(self, person_id: str | None, limit: int) -> list[dict[str, Any]]:
        """The audit."""
        return [_plain(one) or {} for one in self._object.merges(person_id, limit=limit)]

    def save_cohort(self, name: str, definition: Any) -> dict[str, Any]:
        """Save a cohort."""
        return _cohort(self._object.save_cohort(name, definition))

    def cohorts(self) -> list[dict[str, Any]]:
        """The saved cohorts."""
        return [_cohort(one) for one in self._object.cohorts()]

    def cohort(self, name: str) -> dict[str, Any]:
        """One of them, with its size."""
        found = _cohort(self._object.cohort(name))
        return found | {"people": self._object.cohort_size(name).scalar()}

    def delete_cohort(self, name: str) -> None:
        """Let one go."""
        self._object.delete_cohort(name)

    def invoice(self, organization_id: str, period: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The invoice of a month."""
        return _plain(self._object.invoice(organization_id, period, **options)) or {}

    def invoices(self, organization_id: str | None) -> list[dict[str, Any]]:
        """Those that were issued."""
        return [_plain(one) or {} for one in self._object.invoices(organization_id)]

    def save_price_book(self, name: str, document: Any) -> dict[str, Any]:
        """Save a price book."""
        return _price_book(self._object.save_price_book(name, document))

    def price_books(self) -> list[dict[str, Any]]:
        """The newest version of each."""
        return [_price_book(one) for one in self._object.price_books()]

    def save_quota(self, organization_id: str, sku: str, options: Mapping[str, Any]) -> None:
        """Save a quota."""
        self._object.save_quota(organization_id, sku, **options)

    def quotas(self, organization_id: str | None) -> list[dict[str, Any]]:
        """How far each is used."""
        return [_plain(one) or {} for one in self._object.quotas(organization_id)]

    def save_dataset(self, name: str, mapping: Any) -> dict[str, Any]:
        """Save a mapping."""
        return _dataset(self._object.save_dataset(name, mapping))

    def datasets(self) -> list[dict[str, Any]]:
        """The saved mappings."""
        return [_dataset(one) for one in self._object.datasets()]

    def dataset(self, name: str) -> dict[str, Any]:
        """One of them."""
        return _dataset(self._object.dataset(name))

    def delete_dataset(self, name: str) -> None:
        """Let one go."""
        self._object.delete_dataset(name)


def _cohort(one: Any) -> dict[str, Any]:
    """A saved cohort, under the names that HTTP has."""
    found = {"name": one.name, "version": one.version, "savedAt": one.at.isoformat()}
    return found | {"definition": one.body["definition"]}


def _price_book(one: Any) -> dict[str, Any]:
    """A saved price book, likewise."""
    return {"name": one.name, "version": one.version, "savedAt": msgspec.to_builtins(one.at), "document": one.body}


def _dataset(one: Any) -> dict[str, Any]:
    return {"name": one.name, "version": one.version, "savedAt": one.at.isoformat(), "mapping": one.body}


_LINE = ("id", "received_at", "reason", "source", "key", "message_id", "tries", "tried_at", "size")
_PREVIEW = 200


def _line(letter: Any) -> dict[str, Any]:
    preview = letter.raw[: 4 * _PREVIEW].decode("utf-8", "replace")[:_PREVIEW]
    return _camel({name: getattr(letter, name) for name in _LINE}) | {"preview": preview}


def _camel(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the names that HTTP has, so that a script need not care whom it asks."""
    return {re.sub(r"_(\w)", lambda found: found[1].upper(), name): value for name, value in record.items()}


def _plain(struct: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = msgspec.to_builtins(struct)
    return found


def _table(result: Any) -> Table:
    rows: Sequence[Sequence[Any]] = [tuple(row) for row in result]
    many = "row" if len(rows) == 1 else "rows"
    origin = f"{len(rows):,} {many} from {' + '.join(result.tiers) or 'no tier'} in {result.elapsed_ms:.0f} ms"
    return Table(result.columns, rows, origin)
