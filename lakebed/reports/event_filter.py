"""Selection: which events a step, a return or a measure means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from lakebed.errors import QueryRefused
from lakebed.reports.parameters import Parameters

__all__ = ["EventFilter", "EventLike"]

EventLike = str | Mapping[str, Any]


class EventFilter(msgspec.Struct, frozen=True):
    """Events by name and condition.

    Attributes:
        events: their names, any of them; none at all means every event.
        where: SQL over the columns of `events`, or None.
        label: what a reader calls it.
    """

    events: tuple[str, ...] = ()
    where: str | None = None
    label: str = "any event"

    @classmethod
    def of(cls, value: EventLike | None, what: str = "event") -> Self:
        """`"A"`, `{"event": "B", "where": "plan = 'pro'", "label": "Paid"}`, or None for every event.

        `event` may be a list of names, of which any will do; without it, `where` alone decides.

        Raises:
            QueryRefused: it is none of these; `what` names it.
        """
        if value is None:
            return cls()
        if isinstance(value, str) and value:
            return cls((value,), None, value)
        if not isinstance(value, Mapping) or not value or set(value) - {"event", "where", "label"}:
            raise _refused(what, value)
        names, where = value.get("event"), value.get("where")
        events = (names,) if isinstance(names, str) else tuple(names or ())
        if not all(isinstance(name, str) and name for name in events) or not isinstance(where, str | None):
            raise _refused(what, value)
        label = value.get("label") or " or ".join(events) or where or "any event"
        if not isinstance(label, str):
            raise _refused(what, value)
        return cls(events, where, label)

    def condition(self, bind: Parameters) -> str:
        """SQL that is true for its events."""
        parts = []
        if len(self.events) == 1:
            parts.append(f"event = {bind(self.events[0])}")
        elif self.events:
            parts.append(f"event IN ({', '.join(map(bind, self.events))})")
        if self.where is not None:
            parts.append(f"(\n{self.where}\n)")
        return " AND ".join(parts) or "true"


def _refused(what: str, value: object) -> QueryRefused:
    hint = """Give a name, or {"event": "Order Completed", "where": "plan = 'pro'"}"""
    return QueryRefused(f"{what} {str(value)[:80]!r} says no events", hint=hint)
