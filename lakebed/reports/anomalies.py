"""Anomalies: hours and days whose value is far from the values at the same time of earlier days or weeks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from lakebed.clock import DAY_US, HOUR_US, YEAR_1_US, from_us
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.query.router import DAILY, HOURLY
from lakebed.reports.arguments import check_choice, check_number, check_whole_number
from lakebed.reports.calendar import Calendar
from lakebed.reports.context import ReportContext
from lakebed.reports.measure import Measure
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Scope, Time

__all__ = ["anomalies"]

Step = Literal["hour", "day"]
Season = Literal["week", "day", "none"]
_STEP_US = {"hour": HOUR_US, "day": DAY_US}
_SEASON_DAYS = {"week": 7, "day": 1, "none": 0}
_MIN_HISTORY, _MAX_HISTORY = 3, 100
_MAX_ROWS = 10_000
_MAX_SENSITIVITY = 100  # spreads; no value is so far out
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_SPREAD = 1.4826  # the standard deviation of a normal distribution divided by its MAD


async def anomalies(
    context: ReportContext,
    event: EventLike | None = None,
    *,
    measure: str = "count",
    grain: Step = "hour",
    seasonality: Season = "week",
    history: int = 8,
    sensitivity: float = 3.0,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    tz: str = "UTC",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, value, expected, low, high, is_anomaly, reason`: each value, and the band in which it is expected.

    A value is compared with its history: the values at the same wall-clock time of the `history` seasons before, or
    without seasons the values right before it. Periods before the first event do not count. For counts and sums an hour
    without events is a 0; for other measures it has no value, is not judged and is no history. `expected` is the median
    of the history, and the band reaches `sensitivity` times the spread to both sides, for counts not below 0. The
    spread is 1.4826 x the median absolute deviation (Hampel, 1974; Leys et al., 2013), which a single odd week does not
    widen. For counts and sums it is at least that of independent events, the root of the expected sum of their squares:
    for a count the root of `expected`, or 1. If the history has fewer than three values, the reason is "not enough
    history", and the row is no anomaly. The last hour or day is left out if it has not ended by now (or `as_of`).

    Args:
        event: event to measure; by default all.
        measure: measure as in `segmentation`: count, people, sum(x), avg(x), min(x), max(x), distinct(x) or
            quantile(x, 0.95).
        grain: length of a period: hour or day.
        seasonality: periods to compare with. "week": the same hour of the same weekday. "day": the same hour of the
            days before. "none": the hours or days right before.
        history: number of seasons to compare with (with "none", of hours or days), 3 to 100.
        sensitivity: width of the band on each side, in spreads; a lower number finds more anomalies.
        start: first moment of the range that is judged; by default seven days ago.
        end: end of the range that is judged, excluded; by default now.
        where: SQL condition over the columns of `events`. Without a condition, rollups are read if possible: for
            counts, and for people by day.
        cohort: name of a saved cohort; only its people count.
        tz: IANA name of the time zone of hours and weekdays.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, "monday", grain, ("hour", "day"))
    check_choice("seasonality", seasonality, _SEASON_DAYS)
    check_whole_number("history", history, _MAX_HISTORY, minimum=_MIN_HISTORY)
    check_number("sensitivity", sensitivity, _MAX_SENSITIVITY, hint="Give more than 0, up to 100; usual is 3")
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    known_us = context.last_us(scope) + 1
    first_us = max(YEAR_1_US, known_us - 7 * _STEP_US["day"]) if scope.start_us is None else scope.start_us
    if (known_us - first_us) // _STEP_US[grain] > _MAX_ROWS:
        raise QueryRefused(f"the range has more than {_MAX_ROWS:,} rows", hint='Give a shorter range, or grain="day"')
    bind = Parameters()
    measured = Measure.parse(measure, context.promotions, number=True)
    empty = "0" if measured.counts or measured.summed is not None else "NULL"
    source, tables = await _source(context, scope, selection, measured, calendar, grain, bind)
    past = "t.n - k"
    if seasonality != "none":
        zone, moment = bind(tz), calendar.instant(grain, "t.n")
        before = f"timezone({zone}, timezone({zone}, {moment}) - k * INTERVAL {_SEASON_DAYS[seasonality]} DAY)"
        past = calendar.number(grain, before)
    low, high = (calendar.number(grain, bind(from_us(us))) for us in (first_us, known_us))
    sql = f"""
        WITH series AS ({source}), targets AS (SELECT unnest(generate_series({low}, {high} - 1)) AS n),
        seasons AS (SELECT unnest(generate_series(1, {bind(history)})) AS k),
        points AS (SELECT t.n, {past} AS past FROM targets t CROSS JOIN seasons),
        known AS (
            SELECT points.n, coalesce(value, {empty}) AS value, coalesce(squares, 0) AS squares
            FROM points LEFT JOIN series ON series.n = past WHERE past >= (SELECT min(n) FROM series)
        ), typical AS (
            SELECT coalesce(median(squares / nullif(events, 0)), {1 if measured.counts else 0}) FROM series
        ), judged AS (
            SELECT n, count(*) AS known, median(value) AS expected, {_SPREAD} * mad(CAST(value AS DOUBLE)) AS spread,
                sqrt(greatest(median(squares), (FROM typical))) AS least
            FROM known WHERE value IS NOT NULL GROUP BY n
        )
        SELECT {calendar.start(grain, "t.n")} AS time, coalesce(value, {empty}) AS value, expected, spread,
            least, coalesce(known, 0) AS known
        FROM targets t LEFT JOIN series USING (n) LEFT JOIN judged USING (n)
        WHERE (SELECT count(*) FROM series WHERE n < {high}) > 0 ORDER BY time
    """
    result = await context.rows(sql, bind, scope, report="anomalies", tables=tables)
    judge = _Judge(sensitivity, history, tz, seasonality, grain, counts=measured.counts)
    return result.named("anomalies", judge.table(result))


async def _source(
    context: ReportContext,
    scope: Scope,
    selection: EventFilter,
    measured: Measure,
    calendar: Calendar,
    grain: Step,
    bind: Parameters,
) -> tuple[str, Mapping[str, pa.Table] | None]:
    """SQL for `n, value, squares, events` of each period that has events, and the rollups that this SQL reads.

    If the value is a sum, it adds up `events` numbers, and `squares` is the sum of their squares; in a count, each
    event is a 1. For any other measure, `squares` and `events` are 0.
    """
    # Only periods that are over are judged, so events after the last whole hour, or day, do not matter.
    last_us = scope.end_us if scope.end_us is None else scope.end_us // _STEP_US[grain] * _STEP_US[grain]
    read = scope.between(None, last_us)
    if measured.sql == "count(*)" and selection.where is None and (grain == "hour" or calendar.tz == "UTC"):
        hours = await context.hours(read)
        if hours is not None:
            number = calendar.number(grain, "hour")
            counted = f"SELECT {number} AS n, CAST(sum(count) AS BIGINT) AS value FROM {HOURLY}"
            counted += f" WHERE {selection.condition(bind)} GROUP BY n"
            return f"SELECT n, value, value AS squares, value AS events FROM ({counted})", hours
    if (
        measured.sql == "count(DISTINCT person_id)"
        and selection == EventFilter()
        and (grain, calendar.tz) == ("day", "UTC")
    ):
        days = await context.days(read)
        if days is not None:
            number = "date - DATE '1970-01-01'"
            return f"SELECT {number} AS n, dau AS value, dau AS squares, dau AS events FROM {DAILY}", days
    value, squares, events = f"CAST({measured.sql} AS DOUBLE)", "0", "0"
    if measured.counts:
        value = squares = events = measured.sql
    elif measured.summed is not None:
        number = f"CAST({measured.summed} AS DOUBLE)"
        squares, events = f"fsum({number} * {number})", f"count({number})"
    number = calendar.number(grain, "timestamp")
    condition = f"{selection.condition(bind)} AND {scope.between(None, scope.end_us).condition(bind)}"
    return (
        f"SELECT {number} AS n, {value} AS value, {squares} AS squares, {events} AS events "
        f"FROM events WHERE {condition} GROUP BY ALL"
    ), None


class _Judge(msgspec.Struct, frozen=True):
    """Decides for each value whether it is an anomaly, and why."""

    sensitivity: float
    history: int
    tz: str
    seasonality: Season
    grain: Step
    counts: bool

    def table(self, result: Result) -> pa.Table:
        """The report's rows, made from `result`: the values, and the figures of the history of each value."""
        rows = [self._row(row) for row in result]
        names = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
        number = pa.int64() if self.counts else pa.float64()
        kinds = (number, pa.float64(), pa.float64(), pa.float64(), pa.bool_(), pa.string())
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        time = result.arrow().column("time")
        return pa.table([time, *map(pa.array, columns[1:], kinds)], names=list(names))

    def _row(self, row: Any) -> tuple[Any, ...]:
        if row.known < _MIN_HISTORY:
            reason = f"not enough history: {row.known} of {self.history}"
            return row.time, row.value, None, None, None, False, reason
        expected = float(row.expected)
        width = self.sensitivity * max(row.spread, row.least)
        low, high = expected - width, expected + width
        low = max(0.0, low) if self.counts else low
        if row.value is None:
            return row.time, None, expected, low, high, False, "no value"
        is_anomaly = not low <= row.value <= high
        reason = self._reason(row.time, row.value, expected, low, high) if is_anomaly else ""
        return row.time, row.value, expected, low, high, is_anomaly, reason

    def _reason(self, time: date | datetime, value: float, expected: float, low: float, high: float) -> str:
        """The anomaly in words: "31 is 4.4 x the usual 7 for Tuesdays at 14:00; the band is 0 to 15"."""
        local = time.astimezone(ZoneInfo(self.tz)) if isinstance(time, datetime) else time
        if self.seasonality == "none":
            when = f"in the {self.grain}s before"
        else:
            when = f"for {_DAYS[local.weekday()] if self.seasonality == 'week' else 'other days'}"
            when += f" at {local:%H:%M}" if isinstance(local, datetime) else ""
        shown = f"{value:,}" if self.counts else f"{value:,.4g}"
        usual = f"{shown}, where {expected:,.4g} is usual"
        if expected > 0 and value >= 0:
            usual = f"{shown} is {value / expected:.1f} x the usual {expected:,.4g}"
        return f"{usual} {when}; the band is {low:,.4g} to {high:,.4g}"
