"""Scope: which events a report is about, and as of when."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import msgspec

from lakebed.clock import YEAR_1_US, from_us
from lakebed.errors import QueryRefused
from lakebed.moments import MOMENT_HINT, Moment, parse_moment
from lakebed.reports.parameters import Parameters

__all__ = ["Scope", "Time", "instant"]

Time = Moment


class Scope(msgspec.Struct, frozen=True):
    """Events with `start_us <= timestamp < end_us` that meet `where`, of the people of a cohort, as of a moment.

    Attributes:
        start_us: None means no bound, like `end_us`.
        where: SQL over the columns of `events`.
        people: gives the SELECT of the person_ids that count, one column; None means everybody.
        strange: whether a stranger's SQL is in `people`.
        as_of_us: only what was received up to then.
    """

    start_us: int | None = None
    end_us: int | None = None
    where: str | None = None
    people: Callable[[Parameters], str] | None = None
    strange: bool = False
    as_of_us: int | None = None

    def condition(self, bind: Parameters, *, since_us: int | None = None) -> str:
        """SQL over `events` that is true for its events.

        Args:
            bind: takes the values.
            since_us: instead of `start_us`, for reports that look further back.
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
        """The same of another range."""
        return msgspec.structs.replace(self, start_us=start_us, end_us=end_us)

    def previous(self) -> Scope:
        """The same of the period of the same length that ends where this one starts.

        Raises:
            QueryRefused: this one has no bounds, or the calendar begins later.
        """
        if self.start_us is None or self.end_us is None:
            raise QueryRefused("compare without a period", hint="Give start and end")
        start_us = 2 * self.start_us - self.end_us
        if start_us < YEAR_1_US:
            raise QueryRefused("the period before begins before the year 1", hint="Give a later start")
        return self.between(start_us, self.start_us)

    def period(self, bind: Parameters) -> str:
        """SQL over `events` of this period and `previous`: which of them, "current" or "previous"."""
        if self.start_us is None:
            return "'current'"
        return f"CASE WHEN timestamp < {bind(from_us(self.start_us))} THEN 'previous' ELSE 'current' END"


@overload
def instant(name: str, value: Moment) -> int: ...


@overload
def instant(name: str, value: Moment | None) -> int | None: ...


def instant(name: str, value: Moment | None) -> int | None:
    """Microseconds of the argument `name`; None stays None. Raises QueryRefused where it is not a moment."""
    if value is None:
        return None
    try:
        return parse_moment(value)
    except ValueError as error:
        raise QueryRefused(f"{name}: {error}", hint=MOMENT_HINT) from error
