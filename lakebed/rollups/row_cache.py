"""Public rows that were read lately, a UTC day each, so that a question about a month reads only what has changed."""

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
    """Chunks of the tables of all rollups. Those of a rollup are of one state: the one at its `version`.

    A version is odd while rows are being changed. What was read then may be of either state.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], Chunk] = {}
        self._variants: dict[str, int] = {}  # of a rollup: that of its chunks
        self._rows = 0
        self._versions: dict[str, int] = {}

    def version(self, name: str) -> int:
        """Changes when rows of a rollup begin to change, and when they have changed."""
        return self._versions.get(name, 0)

    def held(self, name: str, days: Iterable[int], variant: int = 0) -> dict[int, Chunk]:
        """The chunks that are here. Those of another variant (of who is who) are let go of."""
        if self._variants.get(name, 0) != variant:
            for key in [key for key in self._chunks if key[0] == name]:
                self._rows -= self._chunks.pop(key)[1].num_rows
            self._variants[name] = variant
        return {day: self._chunks[name, day] for day in days if (name, day) in self._chunks}

    def steady(self, name: str, version: int) -> bool:
        """Whether what was read since `version` is of one state, that of the chunks held then."""
        return version % 2 == 0 and version == self.version(name)

    def put(self, name: str, chunks: dict[int, Chunk], variant: int = 0) -> None:
        """Keep chunks that were read while `steady`, if their variant is still the one that is asked for."""
        if self._variants.get(name, 0) != variant:
            return
        rows = sum(table.num_rows for _, table in chunks.values())
        if self._rows + rows > _MAX_ROWS:
            self._chunks.clear()
            self._rows = 0
        if rows <= _MAX_ROWS:
            self._chunks |= {(name, day): chunk for day, chunk in chunks.items()}
            self._rows += rows

    def changing(self, names: Iterable[str]) -> None:
        """Call before rows change; `changed` or `doubtful` must follow."""
        for name in names:
            self._versions[name] = self.version(name) + 1

    def changed(self, name: str, buckets: Iterable[int]) -> None:
        """Let go of the days of these buckets."""
        self._versions[name] = self.version(name) + 1
        for day in {bucket // DAY_US for bucket in buckets}:
            if chunk := self._chunks.pop((name, day), None):
                self._rows -= chunk[1].num_rows

    def doubtful(self, names: Iterable[str]) -> None:
        """Let go of everything: what storage holds is not known."""
        for name in names:
            self.changed(name, ())
        self._chunks.clear()
        self._rows = 0


def days_of(start_us: int, end_us: int) -> range | None:
    """The UTC days that a range touches; None when they are too many to hold."""
    days = range(start_us // DAY_US, -(-end_us // DAY_US))
    return days if 0 < len(days) <= _MAX_DAYS else None


def chunked(buckets: Sequence[int], table: pa.Table, days: Iterable[int]) -> dict[int, Chunk]:
    """The rows of each of these days, from rows that ascend by bucket."""
    import numpy as np  # only objects that answer questions pay for it

    starts = np.array(buckets, np.int64)
    found = {}
    for day in days:
        first, last = np.searchsorted(starts, (day * DAY_US, (day + 1) * DAY_US)).tolist()
        found[day] = starts[first:last], table.slice(first, last - first)
    return found


def joined(chunks: Iterable[Chunk], start_us: int, end_us: int) -> pa.Table:
    """The rows of chunks, in order, whose bucket starts in the range. Raises ArrowInvalid where their types differ."""
    import numpy as np  # only objects that answer questions pay for it

    parts = []
    for starts, table in chunks:
        first, last = np.searchsorted(starts, (start_us, end_us)).tolist()
        parts.append(table.slice(first, last - first))
    return pa.concat_tables(parts)
