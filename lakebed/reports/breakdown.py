"""Split: the column or property that a report is split by. Its largest values have rows, the rest is one value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import msgspec

from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion, column_sql, quoted
from lakebed.reports.limits import check_limit
from lakebed.reports.parameters import Parameters

__all__ = ["OTHER", "Breakdown"]

OTHER = "(other)"
_MOST_VALUES = 100


class Breakdown(msgspec.Struct, frozen=True):
    """What `by` and `top` of a report mean, where every person has one value.

    Attributes:
        by: a column or property.
        top: so many of its values have rows of their own.
        value: SQL over `events` for the value, as text.
    """

    by: str
    top: int
    value: str

    @classmethod
    def of(cls, by: str | None, top: int, promotions: Sequence[Promotion], taken: Collection[str]) -> Self | None:
        """None where `by` is None.

        Args:
            by: as the caller gave it.
            top: the same.
            promotions: the promoted columns.
            taken: names that the report's own columns have.

        Raises:
            QueryRefused: one of them cannot be.
        """
        check_limit("top", top, _MOST_VALUES)
        if by is None:
            return None
        if not isinstance(by, str) or not by or by.lower() in taken:
            hint = f"Name a column or a property, none of {', '.join(taken)}"
            raise QueryRefused(f"by is {str(by)[:40]!r}", hint=hint)
        return cls(by, top, f"CAST({column_sql(by, promotions)} AS VARCHAR)")

    @property
    def column(self) -> str:
        """SQL for the report's column, from the `value` of `named`."""
        return f"value AS {quoted(self.by)}"

    def first(self, condition: str) -> str:
        """An aggregate over `events`: the value of the earliest that meets the condition; of several, by arrival."""
        return f"arg_min_null({self.value}, row(epoch_us(timestamp), seq)) FILTER ({condition})"

    def ranked(self, source: str, people: str, bind: Parameters) -> str:
        """CTEs. `ranked`: `value, nth` of each value of `source`; `named`: `nth, value` of those that have rows.

        Args:
            source: a table with a column `value`.
            people: an aggregate over it, by which values are the largest; equal ones are in order of their text.
            bind: takes the values.
        """
        top = bind(self.top)
        place = f"row_number() OVER (ORDER BY {people} DESC, value NULLS LAST)"
        return f"""
            ranked AS (SELECT value, least({place}, {top} + 1) AS nth FROM {source} GROUP BY value),
            named AS (
                SELECT nth, CASE WHEN nth > {top} THEN {bind(OTHER)} ELSE min(value) END AS value
                FROM ranked GROUP BY nth
            )
        """
