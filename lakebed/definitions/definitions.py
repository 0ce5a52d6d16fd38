"""Definitions: named JSON documents of an object, with versions that never change.

Each is an event that Lakebed itself writes, as a merge is (docs/decisions/0011): durable before `save` returns, in one
order with all events, known to `as_of`, archived, and back when storage.db is lost.
"""

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
_SAID = "definition"  # the member of `properties` that says what an event of Lakebed's own is
_SAVED = f"""
SELECT seq, received_at, properties FROM events
WHERE {IS_DOCUMENT} AND type = 'track' AND event IS NULL AND seq >= $first AND seq < $end
AND json_exists(properties, '$.{_SAID}') ORDER BY seq
"""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a document.

    Attributes:
        kind: what it defines, such as "cohort".
        name: unique among its kind.
        version: 1, 2, 3 …; a removal takes a number too.
        seq: of the event that holds it.
        at: when it was saved.
        body: the document; None where this version removed it.
    """

    kind: str
    name: str
    version: int
    seq: int
    at: datetime
    body: Any


class _Said(msgspec.Struct, frozen=True):
    definition: str
    name: str
    body: Any = None


class Definitions:
    """The documents of one object.

    Memory: all versions are held, as they were read. They are read from the log and the archive once, and then only
    what was added.
    """

    def __init__(self, intake: Ingest, history: EventHistory, queries: Queries) -> None:
        self._intake = intake
        self._history = history
        self._queries = queries
        self._read_to = 0
        self._versions: dict[tuple[str, str], list[Definition]] = {}
        self._lock = asyncio.Lock()

    async def save(self, kind: str, name: str, body: Any) -> Definition:
        """Keep a new version, durably. A body that equals the newest one is that version again.

        Raises:
            InvalidDefinition: the name or the body is none, or larger than 256 KiB as JSON.
            LogUnavailable, DiskFull, Backpressure: nothing was stored, as for `track`.
        """
        _check_name(name)
        encoded = _encoded(name, body)
        newest = await self.get(kind, name)
        if newest is not None and msgspec.json.encode(newest.body) == encoded:
            return newest
        return await self._say(_Said(kind, name, Raw(encoded)))

    async def remove(self, kind: str, name: str) -> Definition:
        """Say that it counts no more. Its versions stay, for whoever asks as of a time when it did.

        Raises:
            InvalidDefinition: there is none of that name.
        """
        if await self.get(kind, name) is None:
            raise InvalidDefinition(f"there is no {kind} {name[:80]!r}", hint=f"There are {await self._named(kind)}")
        return await self._say(_Said(kind, name))

    async def get(
        self, kind: str, name: str, *, version: int | None = None, as_of_us: int | None = None
    ) -> Definition | None:
        """The newest version, that of a moment, or the one of a number; None where there is none or it was removed."""
        versions = await self.history(kind, name, as_of_us=as_of_us)
        if version is not None:
            versions = [one for one in versions if one.version == version]
        return versions[-1] if versions and versions[-1].body is not None else None

    async def newest(self, kind: str, *, as_of_us: int | None = None) -> list[Definition]:
        """The newest version of each of a kind, by name, without those that were removed."""
        end = await self._catch_up(as_of_us)
        found = []
        for (one, _), versions in sorted(self._versions.items()):
            known = [version for version in versions if version.seq < end]
            if one == kind and known and known[-1].body is not None:
                found.append(known[-1])
        return found

    async def history(self, kind: str, name: str, *, as_of_us: int | None = None) -> list[Definition]:
        """All versions, oldest first, removals included."""
        end = await self._catch_up(as_of_us)
        return [one for one in self._versions.get((kind, name), []) if one.seq < end]

    async def _named(self, kind: str) -> str:
        return ", ".join(one.name for one in await self.newest(kind)) or "none"

    async def _say(self, said: _Said) -> Definition:
        event = Event(type="track", source=OPERATOR, properties=Raw(msgspec.json.encode(said)))
        receipt = await self._intake.own(event)
        await self._catch_up(None)
        return next(one for one in self._versions[said.definition, said.name] if one.seq == receipt.seq)

    async def _catch_up(self, as_of_us: int | None) -> int:
        """Read what was saved since, and give the seq before which definitions count."""
        async with self._lock:
            end = self._history.next_seq
            if end > self._read_to:
                rows = await self._queries.ask(_SAVED, {"first": self._read_to, "end": end}, documents=True)
                for row in rows:
                    self._take(row.seq, row.received_at, row.properties)
                self._read_to = end
        return end if as_of_us is None else await self._history.resolve(as_of_us)

    def _take(self, seq: int, at: datetime, properties: str) -> None:
        said = msgspec.json.decode(properties, type=_Said)
        versions = self._versions.setdefault((said.definition, said.name), [])
        versions.append(
            Definition(kind=said.definition, name=said.name, version=len(versions) + 1, seq=seq, at=at, body=said.body)
        )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidDefinition(f"{str(name)[:40]!r} is no name", hint="Give a text of 1 to 200 characters on one line")


def _encoded(name: str, body: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDefinition(f"{name!r} cannot be written as JSON: {error}", hint="Use plain values") from error
    if body is None or len(encoded) > _MAX_BYTES:
        raise InvalidDefinition(
            f"{name!r} has {len(encoded)} bytes of JSON",
            hint=f"Give a document of at most {_MAX_BYTES}",
            limit=_MAX_BYTES,
        )
    return encoded
