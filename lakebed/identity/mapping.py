"""Who is who at one moment, as columns: what bitmaps and SQL are read through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from lakebed.tiers.storage.identity_graph import PersonRow

__all__ = ["Mapping"]

_MANY = 100  # changes, beyond which a mapping is sorted anew
_SCHEMA = pa.schema(
    [("number", pa.uint32()), ("person", pa.uint32()), ("identity", pa.string()), ("person_id", pa.string())]
)


class Mapping:
    """The identities whose person is another identity, and that one. Everybody else is their own person.

    It does not change. Memory: 16 bytes an identity and the two texts; numbers and a bitmap of them add about 10.

    Attributes:
        table: number, person, identity, person_id; ascending by number.
        version: differs between any two mappings of one object.
    """

    def __init__(self, table: pa.Table, version: int) -> None:
        self.table = table
        self.version = version

    @classmethod
    def of(cls, tables: Sequence[pa.Table], version: int) -> Mapping:
        """The mapping of `columns` of rows that ascend by number."""
        return cls(pa.concat_tables([_SCHEMA.empty_table(), *tables]).combine_chunks(), version)

    @classmethod
    def of_columns(cls, columns: Sequence[Any], version: int) -> Mapping:
        """The mapping of whole columns, in the order of `table`'s, that ascend by number."""
        arrays = [pa.chunked_array([one]) if not isinstance(one, pa.ChunkedArray) else one for one in columns]
        table = pa.table([one.cast(field.type) for one, field in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA)
        return cls.of([table], version)

    @staticmethod
    def columns(rows: Sequence[PersonRow]) -> pa.Table:
        """Rows as columns: a tenth of their memory, so make these of some thousands at a time."""
        columns = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(_SCHEMA)]
        return pa.table(columns, schema=_SCHEMA)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def replaced(self, numbers: Iterable[int], rows: Sequence[PersonRow], version: int) -> Mapping:
        """The mapping in which of these identities exactly `rows` are mapped."""
        import numpy as np  # only objects that answer questions pay for it
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        gone, new, old = np.fromiter(numbers, np.uint32), self.columns(rows), self.table["number"].to_numpy()
        if len(gone) > _MANY:
            left = self.table.filter(pc.invert(pc.is_in(self.table["number"], value_set=pa.array(gone))))
            return Mapping(pa.concat_tables([left, new]).sort_by("number").combine_chunks(), version)
        # Few changes: the runs between them are slices of the old table, copied as one and not row by row. Every new
        # row is of one of `gone`.
        fresh = {number: at for at, number in enumerate(new["number"].to_pylist())}
        parts, at = [], 0
        for number in np.sort(gone).tolist():
            place = int(np.searchsorted(old, number))
            parts.append(self.table.slice(at, place - at))
            parts += [new.slice(fresh[number], 1)] if number in fresh else []
            at = place + int(place < len(old) and old[place] == number)
        return Mapping(pa.concat_tables([*parts, self.table.slice(at)]).combine_chunks(), version)

    @cached_property
    def pairs(self) -> pa.Table:
        """identity, person_id: what SQL joins with."""
        return self.table.select(["identity", "person_id"])

    @cached_property
    def _numbers(self) -> tuple[Any, Any, Any]:
        from pyroaring import BitMap  # only objects that answer questions pay for it

        numbers: Any
        people: Any
        numbers, people = (self.table[name].combine_chunks().to_numpy() for name in ("number", "person"))
        return BitMap(memoryview(numbers)), numbers, people

    def people_of(self, bitmap: Any) -> Any:
        """The people of a bitmap of identities, as a bitmap of their numbers. May be `bitmap` itself."""
        if not len(self):
            return bitmap
        import numpy as np  # only objects that answer questions pay for it
        from pyroaring import BitMap

        mapped, numbers, people = self._numbers
        some: Any = bitmap & mapped
        if not some:
            return bitmap
        at = np.searchsorted(numbers, np.frombuffer(some.to_array(), np.uint32))
        found: Any = people[at]  # one may be there twice: a bitmap sees that in a tenth of the time of np.unique
        return (bitmap - some) | BitMap(memoryview(found))

    def person_of(self, identity: str) -> str:
        """The id of the person of an identity."""
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        at = pc.index(self.table["identity"], identity).as_py()
        return identity if at < 0 else str(self.table["person_id"][at])

    def identities_of(self, person_id: str) -> list[str]:
        """All identities of a person, its id included, sorted."""
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        others = self.table.filter(pc.equal(self.table["person_id"], person_id))["identity"].to_pylist()
        return sorted({person_id, *others})
