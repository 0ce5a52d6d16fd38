"""People: looks up, merges and unmerges the people of an object.

An operator's merge is an event of the log like any other (docs/decisions/0011): it is as durable, it has a place in the
order of all events, and `as_of` includes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw

from lakebed.clock import Clock, Moment, parse_as_of
from lakebed.errors import InvalidMerge
from lakebed.events.event import MAX_ID, OPERATOR, Event
from lakebed.identity.extraction import OperatorMerge
from lakebed.identity.identity import Identity
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person, traits_of
from lakebed.identity.resolve import MERGE, UNMERGE
from lakebed.ingest.ingest import Ingest
from lakebed.query.event_history import EventHistory
from lakebed.query.queries import Queries

__all__ = ["People"]

_MAX_REASON = 1000
# By identities and not by `person_id`: the mapping is at hand here, so a join with it would be wasted.
_OF_PERSON = "coalesce(user_id, anonymous_id) IN (SELECT unnest($ids::VARCHAR[])) AND seq < $end"
_SUMMARY = f"""
SELECT min(timestamp) AS first_seen, max(timestamp) AS last_seen, count(*) AS events,
    list_sort(list(DISTINCT user_id) FILTER (user_id IS NOT NULL)) AS users,
    list_sort(list(DISTINCT group_id) FILTER (group_id IS NOT NULL)) AS groups
FROM events WHERE {_OF_PERSON}
"""
_CALLS = f"SELECT timestamp, message_id, properties FROM events WHERE type = 'identify' AND {_OF_PERSON}"


class People:
    """Looks up and changes the people of one object."""

    def __init__(
        self,
        identity: Identity,
        ingest: Ingest,
        catch_up: Callable[[int], Awaitable[None]],
        history: EventHistory,
        queries: Queries,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._ingest = ingest
        self._catch_up = catch_up
        self._history = history
        self._queries = queries
        self._clock = clock

    async def person(self, id: str, *, as_of: Moment | None = None) -> Person | None:  # noqa: A002 - users write id=
        """The person who has this user id or anonymous id; None if no event and no merge names it.

        `as_of` is exact at any instant, merges included.

        Raises:
            InvalidAsOf, QueryTooLarge, QueryTimeout.
        """
        as_of_us = parse_as_of(as_of, self._clock.now_us())
        end = self._history.next_seq if as_of_us is None else await self._history.resolve(as_of_us)
        await self._catch_up(end)
        mapping = await self._identity.mapping_at(end)
        person_id = mapping.person_of(id)
        ids = mapping.identities_of(person_id)
        params: dict[str, Any] = {"ids": ids, "end": end}
        summary = (await self._queries.ask(_SUMMARY, params, as_of_us=as_of_us))[0]
        if not summary.events and len(ids) == 1:
            return None
        calls = await self._queries.ask(_CALLS, params, as_of_us=as_of_us)
        history = traits_of((row.timestamp, row.message_id, row.properties) for row in calls)
        users = summary.users or []
        return Person(
            person_id=person_id,
            ids=ids,
            user_ids=users,
            anonymous_ids=[identity for identity in ids if identity not in set(users)],
            first_seen=summary.first_seen,
            last_seen=summary.last_seen,
            events=summary.events,
            traits={name: values[-1].value for name, values in history.items()},
            history=history,
            groups=summary.groups or [],
        )

    async def merge(self, a: str, b: str, *, why: str | None = None) -> Merge:
        """Merge the people of two ids into one person, durably, as an event of the log.

        The merged person keeps the id of `a`'s person, unless only `b`'s person has a known user id.

        Raises:
            InvalidMerge: the ids belong to one person already, or an id or the reason is not valid.
            LogUnavailable, DiskFull, Backpressure: nothing was stored, as for `track`.
        """
        for identity in (a, b):
            if not isinstance(identity, str) or not 0 < len(identity) <= MAX_ID:
                message = f"{str(identity)[:40]!r} is not a valid id"
                raise InvalidMerge(message, hint=f"Use a text of 1 to {MAX_ID} characters")
        await self._catch_up(self._history.next_seq)
        mapping = await self._identity.mapping()
        into, other = mapping.person_of(a), mapping.person_of(b)
        if into == other:
            raise InvalidMerge(f"{a} and {b} are one person already", hint="merges() shows why", person_id=into)
        return await self._append(OperatorMerge(MERGE, into, other, why=_reason(why)))

    async def unmerge(self, merge_id: str, *, why: str | None = None) -> Merge:
        """Undo one merge that `merges` lists, whether an operator or a client made it. No event is scanned again.

        Links between its two sides that clients sent, or will send, no longer count. `merge` can join the sides again.

        Raises:
            InvalidMerge: there is no such merge, or the reason is not valid.
            LogUnavailable, DiskFull, Backpressure: nothing was stored, as for `track`.
        """
        await self._catch_up(self._history.next_seq)
        ends = await self._identity.ends_of(merge_id)
        if ends is None:
            raise InvalidMerge(f"there is no merge {str(merge_id)[:200]!r}", hint="merges() lists them with their ids")
        into, other, kind = ends
        why = _reason(why)
        if kind is None:
            return await self._append(OperatorMerge(UNMERGE, into, other, why=why))
        return await self._append(OperatorMerge(UNMERGE, into, value=(kind, other), why=why))

    async def merges(self, id: str | None = None, *, limit: int = 100) -> list[Merge]:  # noqa: A002 - users write id=
        """The audit of merges and unmerges, with reasons, newest first: for the person with this id, or for all."""
        await self._catch_up(self._history.next_seq)
        return await self._identity.merges(id, limit)

    async def _append(self, merge: OperatorMerge) -> Merge:
        event = Event(type="alias", source=OPERATOR, properties=Raw(msgspec.json.encode(merge)))
        receipt = await self._ingest.own(event)
        seq = receipt.seq or 0
        await self._catch_up(seq + 1)
        merges = await self._identity.merges(merge.into, self._history.next_seq)
        return next(stored for stored in merges if stored.seq == seq)


def _reason(why: str | None) -> str | None:
    if why is None or (isinstance(why, str) and len(why) <= _MAX_REASON):
        return why
    hint = f"Use a text of at most {_MAX_REASON} characters"
    raise InvalidMerge("the reason is not a text, or too long", hint=hint, limit=_MAX_REASON)
