"""Distinct people: bitmaps of the identities that were seen, read through who is who now.

What is stored are identities, for ever, so that a merge or its undoing rescans nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from lakebed.rollups.fold import Fold
from lakebed.tiers.storage.transaction import GroupRow

__all__ = ["PeopleIndex", "bitmaps_of", "people_table", "unions"]


class PeopleIndex(Protocol):
    """Who is who.

    Attributes:
        version: another one where anybody is somebody else.
    """

    version: int

    def __len__(self) -> int:
        """How many identities belong to another one's person."""
        ...

    def people_of(self, bitmap: Any) -> Any:
        """A bitmap of people for one of identities."""
        ...


def people_table(fold: Fold, groups: Sequence[GroupRow], people: PeopleIndex) -> pa.Table:
    """The public table of stored groups, with people counted where `fold` counts identities. Blocks."""
    table = fold.table([(bucket, key, state) for bucket, key, state, _ in groups])
    for name in fold.people:
        at = table.schema.get_field_index(name)
        seen = [fold.sketch(name, sketches or b"") for _, _, _, sketches in groups]
        counts = pa.array([len(people.people_of(bitmap)) for bitmap in seen], pa.int64())
        table = table.set_column(at, table.schema.field(at), counts)
    return table


def bitmaps_of(
    fold: Fold, measure: str, rows: Iterable[tuple[int, bytes]], people: PeopleIndex | None
) -> Iterator[tuple[int, Any]]:
    """The bucket of each row, and the bitmap of its values, or people. Blocks."""
    for bucket, sketches in rows:
        bitmap = fold.sketch(measure, sketches)
        yield bucket, bitmap if people is None else people.people_of(bitmap)


def unions(bitmaps: Iterable[tuple[int, Any]], windows: Sequence[tuple[int, int]]) -> list[int]:
    """How many there are in all buckets that start in each window. Blocks."""
    from pyroaring import BitMap  # only objects that answer questions pay for it

    held = list(bitmaps)
    found = [[bitmap for bucket, bitmap in held if start <= bucket < end] for start, end in windows]
    return [len(BitMap.union(*chosen)) if chosen else 0 for chosen in found]
