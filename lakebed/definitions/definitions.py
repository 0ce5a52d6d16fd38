"""Definitions: the named JSON documents of an object. A saved version never changes."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from lakebed.errors import InvalidDefinition
from lakebed.events.documents import IS_DOCUMENT
from lakebed.events.event import OPERATOR, Event
from lakebed.ingest.ingest import Ingest
from lakebed.query.event_history import EventHistory
from lakebed.query.queries import Queries

__all__ = ["Definition", "Definitions"]

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_MAX_BYTES = 256 << 10
_KIND = "definition"  # the member of `properties` with the kind of a document
_VERSIONS = f"""
SELECT seq, received_at, properties FROM events
WHERE {IS_DOCUMENT} AND event IS NULL AND seq >= $first AND seq < $end AND json_exists(properties, '$.{_KIND}')
ORDER BY seq
"""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a document.

    Attributes:
        kind: type of the document, such as "cohort".
        name: unique among documents of its kind.
        version: number of the version: 1, 2, 3 …; a removal is a version, too.
        seq: position of this version in the log.
        at: time of saving.
        body: the document; None if this version removed it.
    """

    kind: str
    name: str
    version: int
    seq: int
    at: datetime
    body: Any


class _Saved(msgspec.Struct, frozen=True):
    """The properties of a document's row."""

    definition: str
    name: str
    body: Any = None


class Definitions:
    """The documents of one object.

    All versions are kept in memory. Old versions are read from log and archive once; later calls read only new ones.
    """

    def __init__(self, ingest: Ingest, history: EventHistory, queries: Queries) -> None:
        self._ingest = ingest
        self._history = history
        self._queries = queries
        self._read_to = 0
        self._versions: dict[tuple[str, str], list[Definition]] = {}
        self._lock = asyncio.Lock()

    async def save(self, kind: str, name: str, body: Any) -> Definition:
        """Save a new version, durably. If the body equals the newest version's, that version is returned.

        Raises:
            InvalidDefinition: the name is not valid, or the body is not JSON, None, or larger than 256 KiB as JSON.
            LogUnavailable, DiskFull, Backpressure: nothing was stored, as for `track`.
        """
        _check_name(name)
        encoded = _encoded(name, body)
        newest = await self.get(kind, name)
        if newest is not None and msgspec.json.encode(newest.body) == encoded:
            return newest
        return await self._append(_Saved(kind, name, Raw(encoded)))

    async def remove(self, kind: str, name: str) -> Definition:
        """Save a version without a body: the document is removed. Earlier versions stay, for `as_of`.

        Raises:
            InvalidDefinition: no document of this kind has the name.
        """
        if await self.get(kind, name) is None:
            raise InvalidDefinition(f"there is no {kind} {name[:80]!r}", hint=f"There are {await self._named(kind)}")
        return await self._append(_Saved(kind, name))

    async def get(
        self, kind: str, name: str, *, version: int | None = None, as_of_us: int | None = None
    ) -> Definition | None:
        """The newest version, now or at a time, or the one with a number. None if it does not exist or is a removal."""
        versions = await self.history(kind, name, as_of_us=as_of_us)
        if version is not None:
            versions = [candidate for candidate in versions if candidate.version == version]
        return versions[-1] if versions and versions[-1].body is not None else None

    async def newest(self, kind: str, *, as_of_us: int | None = None) -> list[Definition]:
        """The newest version of each document of a kind, by name. Removed documents are left out."""
        end = await self._catch_up(as_of_us)
        newest = []
        for (kind_of_document, _), versions in sorted(self._versions.items()):
            known = [version for version in versions if version.seq < end]
            if kind_of_document == kind and known and known[-1].body is not None:
                newest.append(known[-1])
        return newest

    async def history(self, kind: str, name: str, *, as_of_us: int | None = None) -> list[Definition]:
        """All versions of a document, oldest first, removals included."""
        end = await self._catch_up(as_of_us)
        return [version for version in self._versions.get((kind, name), []) if version.seq < end]

    async def _named(self, kind: str) -> str:
        return ", ".join(document.name for document in await self.newest(kind)) or "none"

    async def _append(self, saved: _Saved) -> Definition:
        event = Event(type="track", source=OPERATOR, properties=Raw(msgspec.json.encode(saved)))
        receipt = await self._ingest.own(event)
        await self._catch_up(None)
        versions = self._versions[saved.definition, saved.name]
        return next(version for version in versions if version.seq == receipt.seq)

    async def _catch_up(self, as_of_us: int | None) -> int:
        """Read new versions; returns the seq before which versions count."""
        async with self._lock:
            end = self._history.next_seq
            if end > self._read_to:
                rows = await self._queries.ask(_VERSIONS, {"first": self._read_to, "end": end}, documents=True)
                for row in rows:
                    self._take(row.seq, row.received_at, row.properties)
                self._read_to = end
        return end if as_of_us is None else await self._history.resolve(as_of_us)

    def _take(self, seq: int, at: datetime, properties: str) -> None:
        saved = msgspec.json.decode(properties, type=_Saved)
        versions = self._versions.setdefault((saved.definition, saved.name), [])
        number = len(versions) + 1
        versions.append(
            Definition(kind=saved.definition, name=saved.name, version=number, seq=seq, at=at, body=saved.body)
        )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidDefinition(
            f"{str(name)[:40]!r} is not a valid name", hint="Use a text of 1 to 200 characters on one line"
        )


def _encoded(name: str, body: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDefinition(f"{name!r} cannot be written as JSON: {error}", hint="Use plain values") from error
    if body is None:
        raise InvalidDefinition(f"{name!r} has no document", hint="Use a JSON value other than null", limit=_MAX_BYTES)
    if len(encoded) > _MAX_BYTES:
        raise InvalidDefinition(
            f"{name!r} has {len(encoded)} bytes of JSON", hint=f"Use at most {_MAX_BYTES}", limit=_MAX_BYTES
        )
    return encoded
