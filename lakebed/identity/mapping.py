"""Mapping: the person of each identity at one moment, as columns. It resolves identities in bitmaps and in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from lakebed.tiers.storage.identity_graph import PersonRow

__all__ = ["Mapping"]

_MANY = 100  # changes beyond which a mapping is sorted anew
_SCHEMA = pa.schema(
    [("number", pa.uint32()), ("person", pa.uint32()), ("identity", pa.string()), ("person_id", pa.string())]
)


class Mapping:
    """Maps each identity whose person is another identity to that person. Any other identity is its own person.

    Immutable. Memory per identity: 16 bytes and its two texts. `people_of` adds numbers and a bitmap, about 10 bytes.

    Attributes:
        table: columns number, person, identity, person_id; ascending by number.
        version: number that differs between any two mappings of one object.
        size: number of identities in `table`.
    """

    def __init__(self, table: pa.Table, version: int) -> None:
        self.table = table
        self.version = version
        self.size: int = table.num_rows

    @classmethod
    def of(cls, tables: Sequence[pa.Table], version: int) -> Mapping:
        """Make a mapping from tables that `columns` made. Their rows ascend by number."""
        return cls(pa.concat_tables([_SCHEMA.empty_table(), *tables]).combine_chunks(), version)

    @classmethod
    def of_columns(cls, columns: Sequence[Any], version: int) -> Mapping:
        """Make a mapping from the four columns of `table`, whose values ascend by number."""
        arrays = [values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values]) for values in columns]
        table = pa.table([array.cast(field.type) for array, field in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA)
        return cls.of([table], version)

    @staticmethod
    def columns(rows: Sequence[PersonRow]) -> pa.Table:
        """Convert rows to columns, which take a tenth of the memory. Pass some thousands of rows at a time."""
        columns = [pa.array([row[index] for row in rows], field.type) for index, field in enumerate(_SCHEMA)]
        return pa.table(columns, schema=_SCHEMA)

    def replaced(self, numbers: Iterable[int], rows: Sequence[PersonRow], version: int) -> Mapping:
        """A new mapping, in which `rows` replace the rows of the identities `numbers`."""
        import numpy as np  # only objects that answer questions pay for it
        import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

        changed, new, old = np.fromiter(numbers, np.uint32), self.columns(rows), self.table["number"].to_numpy()
        if len(changed) > _MANY:
            unchanged = self.table.filter(pc.invert(pc.is_in(self.table["number"], value_set=pa.array(changed))))
            return Mapping(pa.concat_tables([unchanged, new]).sort_by("number").combine_chunks(), version)
        # Few changes: the runs between them are slices of the old table, each copied as a whole and not row by row.
        # Every new row is of one of `changed`.
        new_rows = {number: row for row, number in enumerate(new["number"].to_pylist())}
        parts, start = [], 0
        for number in np.sort(changed).tolist():
            end = int(np.searchsorted(old, number))
            parts.append(self.table.slice(start, end - start))
            parts += [new.slice(new_rows[number], 1)] if number in new_rows else []
            start = end + int(end < len(old) and old[end] == number)
        return Mapping(pa.concat_tables([*parts, self.table.slice(start)]).combine_chunks(), version)

    @cached_property
    def pairs(self) -> pa.Table:
        """The columns identity and person_id, for joins in SQL."""
        return self.table.select(["identity", "person_id"])

    @cached_property
    def _numbers(self) -> tuple[Any, Any, Any]:
        from pyroaring import BitMap  # only objects that answer questions pay for it

        numbers: Any
        people: Any
        numbers, people = (self.table[name].combine_chunks().to_numpy() for name in ("number", "person"))
        return BitMap(memoryview(numbers)), numbers, people

    def people_of(self, bitmap: Any) -> Any:
        """The people to whom the identities in `bitmap` belong, as a bitmap. The result may be `bitmap` itself."""
        if not self.size:
            return bitmap
        import numpy as np  # only objects that answer questions pay for it
        from pyroaring import BitMap

        mapped, numbers, people = self._numbers
        moved: Any = bitmap & mapped
        if not moved:
            return bitmap
        rows = np.searchsorted(numbers, np.frombuffer(moved.to_array(), np.uint32))
        targets: Any = people[rows]  # with duplicates, which a bitmap drops in a tenth of the time of np.unique
        return (bitmap - moved) | BitMap(memoryview(targets))

    def person_of(self, identity: str) -> str:
        """The id of the person to whom an identity belongs."""
        import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

        row = pc.index(self.table["identity"], identity).as_py()
        return identity if row < 0 else str(self.table["person_id"][row])

    def identities_of(self, person_id: str) -> list[str]:
        """All identities of a person, sorted. The person's id is one of them."""
        import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

        others = self.table.filter(pc.equal(self.table["person_id"], person_id))["identity"].to_pylist()
        return sorted({person_id, *others})
