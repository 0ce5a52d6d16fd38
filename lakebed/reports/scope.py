"""Scope: the events that a report reads, and as of when. Event filters, and the parameters of the SQL for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, overload

import msgspec

from lakebed.clock import MOMENT_HINT, YEAR_1_US, Moment, from_us, parse_moment
from lakebed.errors import QueryRefused

__all__ = ["EventFilter", "EventLike", "Parameters", "Scope", "Time", "instant", "with_tables"]

Time = Moment

EventLike = str | Mapping[str, Any]


class Parameters:
    """The parameters of one SQL statement. `bind("Signup")` returns `$p0`, which stands for that value in the SQL.

    Values that callers give become parameters; they are never written into the SQL.

    Attributes:
        params: the values by name, without the `$`.
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def __call__(self, value: Any) -> str:
        """SQL for `value`: the name of a new parameter."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"${name}"


def with_tables(tables: Mapping[str, str], select: str) -> str:
    """One SQL statement: the subqueries in `tables`, by name, and a `select` over them. Each may read earlier ones."""
    return f"WITH {', '.join(f'{name} AS ({sql})' for name, sql in tables.items())} {select}"


class EventFilter(msgspec.Struct, frozen=True):
    """Events by name and condition: a step of a funnel, a return, the events of a series.

    Attributes:
        events: names of events, any of which fits; an empty tuple means every event.
        where: SQL condition over the columns of `events`, or None.
        label: text that stands for the filter in a result.
    """

    events: tuple[str, ...] = ()
    where: str | None = None
    label: str = "any event"

    @classmethod
    def of(cls, value: EventLike | None, argument: str = "event") -> Self:
        """The filter of `"A"`, of `{"event": "B", "where": "plan = 'pro'", "label": "Paid"}`, or of None: every event.

        `event` may be a list of names, any of which fits; without `event`, `where` alone decides.

        Raises:
            QueryRefused: `value` is none of these; the message names the `argument`.
        """
        if value is None:
            return cls()
        if isinstance(value, str) and value:
            return cls((value,), None, value)
        if not isinstance(value, Mapping) or not value or set(value) - {"event", "where", "label"}:
            raise _no_events(argument, value)
        names, where = value.get("event"), value.get("where")
        events = (names,) if isinstance(names, str) else tuple(names or ())
        if not all(isinstance(name, str) and name for name in events) or not isinstance(where, str | None):
            raise _no_events(argument, value)
        label = value.get("label") or " or ".join(events) or where or "any event"
        if not isinstance(label, str):
            raise _no_events(argument, value)
        return cls(events, where, label)

    def condition(self, bind: Parameters) -> str:
        """SQL that is true for the events of this filter."""
        parts = []
        if len(self.events) == 1:
            parts.append(f"event = {bind(self.events[0])}")
        elif self.events:
            parts.append(f"event IN ({', '.join(map(bind, self.events))})")
        if self.where is not None:
            parts.append(f"(\n{self.where}\n)")
        return " AND ".join(parts) or "true"


def _no_events(argument: str, value: object) -> QueryRefused:
    hint = """Give a name, or {"event": "Order Completed", "where": "plan = 'pro'"}"""
    return QueryRefused(f"{argument}: {str(value)[:80]!r} is not a selection of events", hint=hint)


class Scope(msgspec.Struct, frozen=True):
    """Events with `start_us <= timestamp < end_us` that meet `where`, of the people of a cohort, as of a moment.

    Attributes:
        start_us: microseconds since 1970, included; None means no bound.
        end_us: microseconds since 1970, excluded; None means no bound.
        where: SQL condition over the columns of `events`, or None.
        people: function that returns a SELECT of the person_ids that count, one column; None means everybody.
        untrusted: whether `people` contains SQL that came over the network.
        as_of_us: moment of the answer, microseconds: only events received up to then count; None means now.
    """

    start_us: int | None = None
    end_us: int | None = None
    where: str | None = None
    people: Callable[[Parameters], str] | None = None
    untrusted: bool = False
    as_of_us: int | None = None

    def condition(self, bind: Parameters, *, since_us: int | None = None) -> str:
        """SQL over `events` that is true for the events of this scope.

        Args:
            bind: parameters of the statement; the values are added to them.
            since_us: start of the range instead of `start_us`, for reports that look further back.
        """
        low = self.start_us if since_us is None else max(since_us, YEAR_1_US)
        parts = [] if low is None else [f"timestamp >= {bind(from_us(low))}"]
        if self.end_us is not None:
            parts.append(f"timestamp < {bind(from_us(self.end_us))}")
        if self.where is not None:
            parts.append(f"(\n{self.where}\n)")
        if self.people is not None:
            parts.append(f"person_id IN ({self.people(bind)})")
        return " AND ".join(parts) or "true"

    def between(self, start_us: int | None, end_us: int | None) -> Scope:
        """A copy of this scope with another range."""
        return msgspec.structs.replace(self, start_us=start_us, end_us=end_us)

    def previous(self) -> Scope:
        """A copy of this scope, whose range has the same length and ends where this one starts.

        Raises:
            QueryRefused: this range has no start or no end, or the previous one begins before the year 1.
        """
        if self.start_us is None or self.end_us is None:
            raise QueryRefused("`compare` needs a period", hint="Give `start` and `end`")
        start_us = 2 * self.start_us - self.end_us
        if start_us < YEAR_1_US:
            raise QueryRefused("the previous period would begin before the year 1", hint="Give a later start")
        return self.between(start_us, self.start_us)

    def period(self, bind: Parameters) -> str:
        """SQL for the range of an event: "current" for this scope, "previous" for the scope of `previous`."""
        if self.start_us is None:
            return "'current'"
        return f"CASE WHEN timestamp < {bind(from_us(self.start_us))} THEN 'previous' ELSE 'current' END"


@overload
def instant(name: str, value: Moment) -> int: ...


@overload
def instant(name: str, value: Moment | None) -> int | None: ...


def instant(name: str, value: Moment | None) -> int | None:
    """`value` in microseconds; None stays None. Raises QueryRefused, which names `name`, if `value` is not a moment."""
    if value is None:
        return None
    try:
        return parse_moment(value)
    except ValueError as error:
        raise QueryRefused(f"`{name}`: {error}", hint=MOMENT_HINT) from error
