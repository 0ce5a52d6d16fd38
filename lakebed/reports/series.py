"""Series: a time series, and the SQL that computes it from raw events and the hourly rollup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pyarrow as pa

from lakebed.clock import DAY_US, HOUR_US, MINUTE_US, WEEK_US, Moment, from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion, column_sql, quoted
from lakebed.query.router import HOURLY, RAW, ROLLED, Coverage, Slice, plan, rollup_answers
from lakebed.reports.measure import Measure
from lakebed.reports.scope import instant

__all__ = ["Series", "from_hours"]

_GRAINS_US = {  # the largest length of each grain
    "minute": MINUTE_US,
    "hour": HOUR_US,
    "day": DAY_US,
    "week": WEEK_US,
    "month": 31 * DAY_US,
}


class Series(msgspec.Struct, frozen=True):
    """A value of `measure` for each bucket of length `grain` in `[start_us, end_us)`, split by the columns `by`."""

    event: str | None
    start_us: int
    end_us: int
    grain: str
    by: tuple[str, ...]
    measure: Measure
    where: str | None
    as_of_us: int | None
    promotions: tuple[Promotion, ...]

    @classmethod
    def of(cls, *, start: Moment, end: Moment, grain: str, by: str | Sequence[str] | None, **others: Any) -> Self:
        """The series for the arguments of `timeseries`. Raises QueryRefused if an argument is not valid."""
        start_us, end_us = instant("start", start), instant("end", end)
        if start_us > end_us:
            raise QueryRefused(f"`start` {start} lies after `end` {end}", hint="Give an earlier start, or a later end")
        if grain not in _GRAINS_US:
            raise QueryRefused(f"`grain` is {grain!r}", hint=f"Use one of {', '.join(_GRAINS_US)}")
        names = () if by is None else (by,) if isinstance(by, str) else tuple(by)
        lowered = [str(name).lower() for name in (*names, "time", "value")]
        if not all(isinstance(name, str) and name for name in names) or len(set(lowered)) < len(lowered):
            raise QueryRefused(
                f"`by` is {by!r}", hint="Name columns or properties, each once; `time` and `value` are taken"
            )
        return cls(start_us=start_us, end_us=end_us, grain=grain, by=names, **others)

    @property
    def has_rollup(self) -> bool:
        """Whether `hourly_events` has the values of this series, except in the parts of hours at its ends."""
        complete = rollup_answers(HOURLY, filtered=self.where is not None, as_of_us=self.as_of_us)
        return complete and self.measure.sql == "count(*)" and self.grain != "minute" and self.by in ((), ("event",))

    @property
    def is_filled(self) -> bool:
        """Whether buckets without events have rows."""
        return not self.by and self.measure.counts

    @property
    def least_rows(self) -> int:
        """The least number of rows that the series has."""
        return (self.end_us - self.start_us) // _GRAINS_US[self.grain] if self.is_filled else 0

    def slices(self, *, rolled: bool) -> tuple[Slice, ...]:
        """The slices of the range, each with its source: with `rolled`, whole hours come from `hourly_events`."""
        hours = [Coverage(ROLLED, grain_us=HOUR_US)] if rolled else []
        return plan(self.start_us, self.end_us, [*hours, Coverage(RAW)])

    def params(self, slices: Sequence[Slice]) -> dict[str, Any]:
        """The values of the parameters in `sql`."""
        values: dict[str, Any] = {} if self.event is None else {"event": self.event}
        for number, (low, high) in enumerate(self._raw(slices)):
            values |= {f"low{number}": from_us(low), f"high{number}": from_us(high)}
        if self.is_filled:
            values |= {"first": from_us(self.start_us), "last": from_us(max(self.start_us, self.end_us - 1))}
        return values

    def _raw(self, slices: Sequence[Slice]) -> list[tuple[int, int]]:
        if not slices:
            return [(self.start_us, self.end_us)]  # an empty range: no rows, but columns
        return [(piece.start_us, piece.end_us) for piece in slices if piece.tier == RAW]

    def sql(self, slices: Sequence[Slice]) -> str:
        """The statement over `events` and `hourly_events`. `hourly_events` must have only the hours of its slices."""
        names = "".join(f", {quoted(name)}" for name in self.by)
        selects = [self._events_sql(number) for number in range(len(self._raw(slices)))]
        if any(piece.tier == ROLLED for piece in slices):
            selects.append(self._hours_sql(names))
        values = selects[0]
        if len(selects) > 1:  # only counts have several, and these add up
            values = f"SELECT time{names}, sum(value) AS value FROM ({' UNION ALL '.join(selects)}) GROUP BY ALL"
        limit = "" if slices else " LIMIT 0"
        if not self.is_filled:
            return f"SELECT time, value{names} FROM ({values}) ORDER BY time{names}{limit}"
        buckets = (
            f"SELECT unnest(generate_series(date_trunc('{self.grain}', $first::TIMESTAMPTZ), $last::TIMESTAMPTZ, "
            f"INTERVAL 1 {self.grain})) AS time"
        )
        return (
            f"SELECT time, CAST(coalesce(value, 0) AS BIGINT) AS value FROM ({buckets}) LEFT JOIN ({values}) "
            f"USING (time) ORDER BY time{limit}"
        )

    def _events_sql(self, number: int) -> str:
        names = "".join(f", {column_sql(name, self.promotions)} AS {quoted(name)}" for name in self.by)
        conditions = [f"timestamp >= $low{number}", f"timestamp < $high{number}"]
        conditions += ["event = $event"] if self.event is not None else []
        conditions += [f"(\n{self.where}\n)"] if self.where is not None else []
        return (
            f"SELECT {_bucket(self.grain, 'timestamp')} AS time{names}, {self.measure.sql} AS value "
            f"FROM events WHERE {' AND '.join(conditions)} GROUP BY ALL"
        )

    def _hours_sql(self, names: str) -> str:
        where = "" if self.event is None else " WHERE event = $event"
        return (
            f"SELECT {_bucket(self.grain, 'hour')} AS time{names}, sum(count) AS value FROM {HOURLY}{where} "
            "GROUP BY ALL"
        )


def _bucket(grain: str, column: str) -> str:
    """SQL for the start of the bucket of a TIMESTAMPTZ."""
    if grain not in ("minute", "hour", "day"):
        return f"date_trunc('{grain}', {column})"
    # In UTC these grains have one length. DuckDB's date_trunc calls a calendar for each row: 0.2 us instead of 0.01.
    us = _GRAINS_US[grain]
    return f"make_timestamptz(epoch_us({column}) - (epoch_us({column}) % {us} + {us}) % {us})"


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]


_LENGTHS = {"hour": HOUR_US, "day": DAY_US, "week": WEEK_US}
_OFFSETS = {"week": 4 * DAY_US}  # 1970-01-05 was a Monday


def from_hours(series: Series, hours: pa.Table) -> pa.Table:
    """Rows `time, value` for every bucket of `series`, from the rows of `hours`. Only if `series.is_filled`."""
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
