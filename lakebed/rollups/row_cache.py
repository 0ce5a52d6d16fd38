"""A cache of public rows, one UTC day each, so that a query over a month reads only the days that changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from lakebed.clock import DAY_US

__all__ = ["Chunk", "RowCache", "chunked", "days_of", "joined"]

_MAX_DAYS = 400  # longer ranges are read from storage
_MAX_ROWS = 200_000

Chunk = tuple[Any, pa.Table]  # bucket starts (numpy, ascending), and their rows


class RowCache:
    """Chunks of the tables of all rollups. All chunks of a rollup belong to one state, that of its `version`.

    A version is odd while rows change. Rows read meanwhile may be from before or after the change.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], Chunk] = {}
        self._variants: dict[str, int] = {}  # by rollup: the variant of its chunks
        self._rows = 0
        self._versions: dict[str, int] = {}

    def version(self, name: str) -> int:
        """The version of a rollup: it grows when its rows begin to change, and when the change is over."""
        return self._versions.get(name, 0)

    def get(self, name: str, days: Iterable[int], variant: int = 0) -> dict[int, Chunk]:
        """The cached chunks of these days. Chunks of another variant (version of the identity mapping) are dropped."""
        if self._variants.get(name, 0) != variant:
            for key in [key for key in self._chunks if key[0] == name]:
                self._rows -= self._chunks.pop(key)[1].num_rows
            self._variants[name] = variant
        return {day: self._chunks[name, day] for day in days if (name, day) in self._chunks}

    def is_unchanged(self, name: str, version: int) -> bool:
        """Whether rows read since `version` belong to the same state as the chunks cached at that version."""
        return version % 2 == 0 and version == self.version(name)

    def put(self, name: str, chunks: dict[int, Chunk], variant: int = 0) -> None:
        """Cache chunks for which `is_unchanged` holds. Chunks of an outdated variant are ignored."""
        if self._variants.get(name, 0) != variant:
            return
        rows = sum(table.num_rows for _, table in chunks.values())
        if self._rows + rows > _MAX_ROWS:
            self._chunks.clear()
            self._rows = 0
        if rows <= _MAX_ROWS:
            self._chunks |= {(name, day): chunk for day, chunk in chunks.items()}
            self._rows += rows

    def begin_change(self, names: Iterable[str]) -> None:
        """Call before rows change. `end_change` or `clear` must follow."""
        for name in names:
            self._versions[name] = self.version(name) + 1

    def end_change(self, name: str, buckets: Iterable[int]) -> None:
        """Drop the days of the changed buckets."""
        self._versions[name] = self.version(name) + 1
        for day in {bucket // DAY_US for bucket in buckets}:
            if chunk := self._chunks.pop((name, day), None):
                self._rows -= chunk[1].num_rows

    def clear(self, names: Iterable[str]) -> None:
        """Drop everything, after a change of these rollups with an unknown outcome."""
        for name in names:
            self.end_change(name, ())
        self._chunks.clear()
        self._rows = 0


def days_of(start_us: int, end_us: int) -> range | None:
    """The UTC days that a range touches; None if they are too many for the cache."""
    days = range(start_us // DAY_US, -(-end_us // DAY_US))
    return days if 0 < len(days) <= _MAX_DAYS else None


def chunked(buckets: Sequence[int], table: pa.Table, days: Iterable[int]) -> dict[int, Chunk]:
    """The rows of each day, from rows in order of bucket."""
    import numpy as np  # only objects that run queries pay for it

    starts = np.array(buckets, np.int64)
    chunks = {}
    for day in days:
        first, last = np.searchsorted(starts, (day * DAY_US, (day + 1) * DAY_US)).tolist()
        chunks[day] = starts[first:last], table.slice(first, last - first)
    return chunks


def joined(chunks: Iterable[Chunk], start_us: int, end_us: int) -> pa.Table:
    """The rows of ordered chunks whose bucket starts in the range. Raises ArrowInvalid if types of columns differ."""
    import numpy as np  # only objects that run queries pay for it

    parts = []
    for starts, table in chunks:
        first, last = np.searchsorted(starts, (start_us, end_us)).tolist()
        parts.append(table.slice(first, last - first))
    return pa.concat_tables(parts)
