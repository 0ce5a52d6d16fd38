"""Breakdown: the column or property that a report is split by. Its largest values have rows, the rest is one value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import msgspec

from lakebed.events.promotions import Promotion, column_sql, quoted
from lakebed.reports.arguments import check_whole_number, refuse
from lakebed.reports.scope import Parameters

__all__ = ["OTHER", "Breakdown"]

OTHER = "(other)"
"""Stands in rows for all values that have none of their own."""
_MAX_VALUES = 100


class Breakdown(msgspec.Struct, frozen=True):
    """The `by` and `top` of a report in which each person has one value.

    Attributes:
        by: name of a column or a property.
        top: number of its values that have rows of their own.
        value: SQL over `events` for the value, as text.
    """

    by: str
    top: int
    value: str

    @classmethod
    def of(cls, by: str | None, top: int, promotions: Sequence[Promotion], taken: Collection[str]) -> Self | None:
        """The breakdown of the arguments of a report; None where `by` is None.

        Args:
            by: name of a column or a property, or None.
            top: number of values, 1 to 100.
            promotions: the promoted columns.
            taken: names of the report's own columns.

        Raises:
            QueryRefused: `by` or `top` is not valid.
        """
        check_whole_number("top", top, _MAX_VALUES)
        if by is None:
            return None
        if not isinstance(by, str) or not by or by.lower() in taken:
            refuse("by", by, f"Name a column or a property, none of {', '.join(taken)}")
        return cls(by, top, f"CAST({column_sql(by, promotions)} AS VARCHAR)")

    @property
    def column(self) -> str:
        """SQL for the report's column, from the `value` of `named`."""
        return f"value AS {quoted(self.by)}"

    def first(self, condition: str) -> str:
        """An aggregate over `events`: the value of the earliest event that meets `condition`; ties go by arrival."""
        return f"arg_min_null({self.value}, row(epoch_us(timestamp), seq)) FILTER ({condition})"

    def ranked(self, source: str, people: str, bind: Parameters) -> dict[str, str]:
        """Tables: `ranked` has `value, nth` of each value of `source`; `named` has `nth, value` of those with rows.

        Args:
            source: table with a column `value`.
            people: aggregate over it by which values are ranked; equal ones are in order of their text.
            bind: parameters of the statement; the values are added to them.
        """
        top = bind(self.top)
        place = f"row_number() OVER (ORDER BY {people} DESC, value NULLS LAST)"
        name = f"CASE WHEN nth > {top} THEN {bind(OTHER)} ELSE min(value) END"
        return {
            "ranked": f"SELECT value, least({place}, {top} + 1) AS nth FROM {source} GROUP BY value",
            "named": f"SELECT nth, {name} AS value FROM ranked GROUP BY nth",
        }
