"""Hourly series: a time series from whole hours of `hourly_events` alone: the usual chart, without DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakebed.clock import DAY_US, HOUR_US, WEEK_US
from lakebed.reports.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]

__all__ = ["from_hours"]

_LENGTHS = {"hour": HOUR_US, "day": DAY_US, "week": WEEK_US}
_OFFSETS = {"week": 4 * DAY_US}  # 1970-01-05 was a Monday


def from_hours(series: Series, hours: pa.Table) -> pa.Table:
    """Rows `time, value` for every bucket of `series`, from the rows of `hours`. Only for series that are filled."""
    import numpy as np  # only objects that run reports pay for the import
    import pyarrow.compute as pc  # a quarter of the time that importing pyarrow takes

    if series.event is not None:
        hours = hours.filter(pc.equal(hours["event"], series.event))
    starts = _starts(series)
    values = np.zeros(len(starts), np.int64)
    places = np.searchsorted(starts, hours["hour"].cast(pa.int64()).to_numpy(), side="right") - 1
    np.add.at(values, places, hours["count"].to_numpy())
    times = pa.array(starts).cast(pa.timestamp("us", tz="UTC"))
    return pa.table([times, pa.array(values)], names=["time", "value"])


def _starts(series: Series) -> Times:
    """The starts of the buckets of a series. The first may lie before the start of the series."""
    import numpy as np  # only objects that run reports pay for the import

    if series.grain == "month":
        ends: Any = np.array([series.start_us, series.end_us - 1], "M8[us]").astype("M8[M]")
        months: Times = np.arange(ends[0], ends[1] + 1).astype("M8[us]").astype(np.int64)
        return months
    length, offset = _LENGTHS[series.grain], _OFFSETS.get(series.grain, 0)
    return np.arange((series.start_us - offset) // length * length + offset, series.end_us, length, dtype=np.int64)
