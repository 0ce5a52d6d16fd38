"""Person: all facts about one person, from their events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Person", "Trait", "traits_of"]


class Trait(msgspec.Struct, frozen=True):
    """A value that a trait had from `timestamp` on, set by the identify call `message_id`."""

    value: Any
    timestamp: datetime
    message_id: str


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """All facts about one person.

    Attributes:
        person_id: one of `ids`. A lookup by any other of `ids` gives the same one.
        ids: all ids, sorted. `user_ids` are those that events had as `user_id`, `anonymous_ids` all others.
        first_seen: event time of the earliest event; `last_seen` is that of the latest. Both are None without events.
        events: number of events.
        traits: the latest value of each trait, by event time, then message id.
        history: all values of each trait, oldest first; equal values in succession are one entry.
        groups: ids of the groups in events, sorted.
    """

    person_id: str
    ids: list[str]
    user_ids: list[str]
    anonymous_ids: list[str]
    first_seen: datetime | None
    last_seen: datetime | None
    events: int
    traits: dict[str, Any]
    history: dict[str, list[Trait]]
    groups: list[str]


def traits_of(calls: Iterable[tuple[datetime, str, str]]) -> dict[str, list[Trait]]:
    """The history of each trait, from identify calls in any order: (event time, message id, traits as JSON)."""
    history: dict[str, list[Trait]] = {}
    for timestamp, message_id, traits in sorted(calls):
        for name, value in msgspec.json.decode(traits).items():
            values = history.setdefault(name, [])
            if not values or values[-1].value != value or type(values[-1].value) is not type(value):
                values.append(Trait(value, timestamp, message_id))
    return history
