"""Table: rows under named columns, from an object here or from a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec

__all__ = ["Table", "to_json"]


class Table(msgspec.Struct, frozen=True):
    """Rows under named columns.

    Attributes:
        columns: the names of the columns.
        rows: the values, in the order of the columns.
        origin: one line that names the tiers of the rows and the time that the answer took; empty if unknown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    origin: str = ""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Self:
        """The `columns` of records; None where a record lacks one."""
        return cls(columns, [[record.get(column) for column in columns] for record in records])

    @classmethod
    def answered(
        cls, columns: Sequence[str], rows: Sequence[Sequence[Any]], tiers: Sequence[str], elapsed_ms: float
    ) -> Self:
        """The table of an answer that was read from `tiers` in `elapsed_ms`."""
        noun = "row" if len(rows) == 1 else "rows"
        origin = f"{len(rows):,} {noun} from {' + '.join(tiers) or 'no tier'} in {elapsed_ms:.0f} ms"
        return cls(columns, rows, origin)

    def records(self) -> list[dict[str, Any]]:
        """The rows as mappings."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def to_json(value: Any) -> str:
    """`value` on one line. Times are ISO 8601; types that JSON lacks become text."""
    return msgspec.json.encode(value, enc_hook=str).decode()
