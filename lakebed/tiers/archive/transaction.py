"""A pyiceberg transaction whose cost does not grow as fast as the history of the table."""

from __future__ import annotations

from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata

__all__ = ["Changes"]


class Changes(Transaction):
    """What a commit will change. Every commit of ours goes through one.

    pyiceberg derives the metadata under way anew each time that it looks at it, 23 times in an append, and each time it
    copies all of them, snapshot by snapshot. They only change when something is staged, and nobody writes to them.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._derived: tuple[object, object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with what was staged so far."""
        base, staged = self._table.metadata, self._updates
        if not staged:
            return base
        if self._derived is None or self._derived[0] is not base or self._derived[1] is not staged:
            self._derived = base, staged, super().table_metadata
        return self._derived[2]
