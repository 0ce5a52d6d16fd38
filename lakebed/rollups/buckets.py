"""Finds where hours, days and months of a rollup begin, in any time zone. Also a cache for the rows of buckets.

Zones are Python's (zoneinfo), not DuckDB's, so that one zone table decides for all of a rollup. Times are int64
arrays of microseconds. reports/calendar.py does this for reports in SQL, as their rows are in DuckDB already.

The cache holds public rows in chunks of one UTC day, so that a query over a month reads only days that changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from lakebed.clock import DAY_US, EPOCH, HOUR_US, YEAR_1_US, from_us, to_us

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]

__all__ = ["Chunk", "RowCache", "bucket_dates", "bucket_starts", "chunked", "days_of", "joined"]

_QUARTER = HOUR_US // 4
_MICROSECOND = EPOCH.resolution
_YEAR_9999 = to_us(datetime(9999, 12, 31, tzinfo=UTC))  # the last day that Python has
# A few days inside the dates that Python has, so that local times have a date too. Beyond, the nearest offset holds.
_FIRST = to_us(datetime(1, 1, 3, tzinfo=UTC))
_LAST = to_us(datetime(9999, 12, 29, tzinfo=UTC))
_MAX_DAYS = 400  # longer ranges are read from storage
_MAX_ROWS = 200_000

Chunk = tuple[Any, pa.Table]  # bucket starts (numpy, ascending), and their rows


def bucket_starts(times: Times, grain: str, timezone: str) -> Times:
    """For each time, the start of the bucket that contains it.

    An hour begins at a full local hour, or when the clocks change within an hour; the hour that is repeated in autumn
    is two buckets. A day or month begins at local midnight (the first of two); if midnight is skipped, at the time
    that the old offset gives. Times that a zone moves outside the years 1 to 9999 count in the first or last
    bucket, because Python has no date for their own.
    """
    if timezone == "UTC":
        return _floor(times, grain)
    zone = ZoneInfo(timezone)
    offsets = _offsets(times, zone)
    labels = _floor(times + offsets, grain)
    if grain == "hour":
        return _clipped(labels - offsets, offsets, times, zone).clip(YEAR_1_US)
    return _mapped(labels.clip(YEAR_1_US, _YEAR_9999), lambda label: _midnight(label, zone))


def bucket_dates(starts: Times, grain: str, timezone: str) -> NDArray[np.int32]:
    """The local date of each day's or month's start, as days since 1970-01-01."""
    if timezone != "UTC":
        starts = starts + _offsets(starts, ZoneInfo(timezone))
    return (_floor(starts, grain) // DAY_US).astype("int32")


def _floor(times: Times, grain: str) -> Times:
    if grain == "month":
        months: Times = times.astype("M8[us]").astype("M8[M]").astype("M8[us]").astype("int64")
        return months
    floored: Times = times - times % (HOUR_US if grain == "hour" else DAY_US)
    return floored


def _offset(us: int, zone: ZoneInfo) -> int:
    return _us_between(from_us(min(max(us, _FIRST), _LAST)).astimezone(zone))


def _midnight(label: int, zone: ZoneInfo) -> int:
    return label - _us_between(from_us(min(max(label, _FIRST), _LAST)).replace(tzinfo=zone))


def _us_between(moment: datetime) -> int:
    """The microseconds by which local time is ahead of UTC at `moment`."""
    return (moment.replace(tzinfo=UTC) - moment.astimezone(UTC)) // _MICROSECOND


def _offsets(times: Times, zone: ZoneInfo) -> Times:
    """The zone's offset at each time. Looked up once per quarter of an hour, unless the clocks change within it."""
    quarters = times // _QUARTER
    offsets = _mapped(quarters, lambda quarter: _offset(quarter * _QUARTER, zone))
    after = _mapped(quarters, lambda quarter: _offset((quarter + 1) * _QUARTER - 1, zone))
    split = offsets != after
    if split.any():
        offsets[split] = _mapped(times[split], lambda us: _offset(us, zone))
    return offsets


def _clipped(starts: Times, offsets: Times, times: Times, zone: ZoneInfo) -> Times:
    """If the clocks change within an hour, move the start of that hour to the moment of the change."""
    before = _mapped(starts, lambda us: _offset(us, zone)) != offsets
    for start, offset in set(zip(starts[before].tolist(), offsets[before].tolist(), strict=True)):
        rows = before & (starts == start) & (offsets == offset)
        starts[rows] = _change(start, int(times[rows].min()), offset, zone)
    return starts


def _change(low: int, high: int, offset: int, zone: ZoneInfo) -> int:
    """The first microsecond in (low, high] with `offset`. `high` has that offset, `low` has another."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone) == offset else (middle, high)
    return high


def _mapped(values: Times, function: Any) -> Times:
    """Apply `function` to each value. Calls it once for each distinct value."""
    import numpy as np  # only objects that fold pay for it

    distinct, where = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in distinct.tolist()], np.int64)[where]


class RowCache:
    """Caches chunks of the tables of all rollups. All chunks of a rollup belong to one state, which has a version.

    A version is odd while rows change. Rows that are read during a change may be from before or after it.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, int], Chunk] = {}
        self._variants: dict[str, int] = {}  # by rollup: the variant of its chunks
        self._rows = 0
        self._versions: dict[str, int] = {}

    def version(self, name: str) -> int:
        """The version of a rollup. It grows when a change of the rows begins, and again when the change has ended."""
        return self._versions.get(name, 0)

    def get(self, name: str, days: Iterable[int], variant: int = 0) -> dict[int, Chunk]:
        """The cached chunks of these days. Chunks of another variant (version of the identity mapping) are dropped."""
        if self._variants.get(name, 0) != variant:
            for key in [key for key in self._chunks if key[0] == name]:
                self._rows -= self._chunks.pop(key)[1].num_rows
            self._variants[name] = variant
        return {day: self._chunks[name, day] for day in days if (name, day) in self._chunks}

    def is_unchanged(self, name: str, version: int) -> bool:
        """Whether rows read since the rollup had `version` belong to the same state as the chunks cached then."""
        return version % 2 == 0 and version == self.version(name)

    def put(self, name: str, chunks: dict[int, Chunk], variant: int = 0) -> None:
        """Cache chunks. The caller must have checked `is_unchanged`. Ignores chunks of an outdated variant."""
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
        """Declare that rows begin to change. `end_change` or `clear` must follow."""
        for name in names:
            self._versions[name] = self.version(name) + 1

    def end_change(self, name: str, buckets: Iterable[int]) -> None:
        """Declare that the change has ended, and drop the days of the changed buckets."""
        self._versions[name] = self.version(name) + 1
        for day in {bucket // DAY_US for bucket in buckets}:
            if chunk := self._chunks.pop((name, day), None):
                self._rows -= chunk[1].num_rows

    def clear(self, names: Iterable[str]) -> None:
        """Drop all chunks of all rollups, and end the change of `names`. For a change with an unknown outcome."""
        for name in names:
            self.end_change(name, ())
        self._chunks.clear()
        self._rows = 0


def days_of(start_us: int, end_us: int) -> range | None:
    """The UTC days in which a range has a part; None if there are none, or too many for the cache."""
    days = range(start_us // DAY_US, -(-end_us // DAY_US))
    return days if 0 < len(days) <= _MAX_DAYS else None


def chunked(buckets: Sequence[int], table: pa.Table, days: Iterable[int]) -> dict[int, Chunk]:
    """Split rows, which are in order of bucket, into a chunk for each day."""
    import numpy as np  # only objects that run queries pay for it

    starts = np.array(buckets, np.int64)
    chunks = {}
    for day in days:
        first, last = np.searchsorted(starts, (day * DAY_US, (day + 1) * DAY_US)).tolist()
        chunks[day] = starts[first:last], table.slice(first, last - first)
    return chunks


def joined(chunks: Iterable[Chunk], start_us: int, end_us: int) -> pa.Table:
    """Join the rows of ordered chunks whose bucket starts in the range. Raises ArrowInvalid if column types differ."""
    import numpy as np  # only objects that run queries pay for it

    parts = []
    for starts, table in chunks:
        first, last = np.searchsorted(starts, (start_us, end_us)).tolist()
        parts.append(table.slice(first, last - first))
    return pa.concat_tables(parts)
