"""Where hours, days and months of a rollup begin, in any time zone.

Zones are Python's (zoneinfo), not DuckDB's, so that one table decides for all of a rollup. Times are microseconds in
int64 arrays. reports/calendar.py is the same for reports, as SQL: there the rows are in DuckDB already.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from lakebed.clock import DAY_US, EPOCH, HOUR_US, YEAR_1_US, from_us, to_us

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]

__all__ = ["bucket_dates", "bucket_starts"]

_QUARTER = HOUR_US // 4
_MICROSECOND = EPOCH.resolution
_YEAR_9999 = to_us(datetime(9999, 12, 31, tzinfo=UTC))  # the last day that Python has
# A few days inside the dates that Python has, so that local times have a date too. Beyond, the nearest offset holds.
_FIRST = to_us(datetime(1, 1, 3, tzinfo=UTC))
_LAST = to_us(datetime(9999, 12, 29, tzinfo=UTC))


def bucket_starts(times: Times, grain: str, timezone: str) -> Times:
    """The start of the bucket of each time.

    An hour begins at a full local hour, or where the clocks change within an hour; the hour that is repeated in autumn
    is two buckets. A day or month begins at its local midnight, the first of two; where midnight is skipped, at the
    moment that the old offset gives. Times that a zone moves outside the years 1 to 9999 count in the first or last
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
    """The local dates of days and months, as days since 1970-01-01."""
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
    """Microseconds by which local time is ahead of UTC."""
    return (moment.replace(tzinfo=UTC) - moment.astimezone(UTC)) // _MICROSECOND


def _offsets(times: Times, zone: ZoneInfo) -> Times:
    """The zone's offset at each time. Looked up once a quarter of an hour, unless the clocks change in it."""
    quarters = times // _QUARTER
    offsets = _mapped(quarters, lambda quarter: _offset(quarter * _QUARTER, zone))
    after = _mapped(quarters, lambda quarter: _offset((quarter + 1) * _QUARTER - 1, zone))
    split = offsets != after
    if split.any():
        offsets[split] = _mapped(times[split], lambda us: _offset(us, zone))
    return offsets


def _clipped(starts: Times, offsets: Times, times: Times, zone: ZoneInfo) -> Times:
    """Move the start of an hour in which the clocks change to the moment of that change."""
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
    """`function` of each value, called once for each distinct value."""
    import numpy as np  # only objects that fold pay for it

    distinct, where = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in distinct.tolist()], np.int64)[where]
