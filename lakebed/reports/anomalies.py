"""Anomalies: hours and days that are not as those before them, at the same time of a week, lead one to expect."""

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
from lakebed.reports.calendar import Calendar
from lakebed.reports.context import ReportContext
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.limits import check_limit
from lakebed.reports.measure import Measure
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Scope, Time

__all__ = ["anomalies"]

Step = Literal["hour", "day"]
Season = Literal["week", "day", "none"]
_STEP_US = {"hour": HOUR_US, "day": DAY_US}
_SEASON_DAYS = {"week": 7, "day": 1, "none": 0}
_LEAST = 3
_MOST_ROWS = 10_000
_MOST_HISTORY = 100
_WIDEST = 100  # no value is so far out
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_SPREAD = 1.4826  # of a normal distribution, its standard deviation is so many times its MAD


async def anomalies(
    inquiry: ReportContext,
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
    """Rows `time, value, expected, low, high, is_anomaly, reason`: each value beside those that it is judged by.

    These are the values at the same wall-clock time of `history` seasons before, or without seasons those right before;
    what lies before the first event is none of them. Of counts and sums an hour without events is a 0; of other
    measures it has no value, is not judged and judges none. `expected` is their median, and the band goes `sensitivity`
    times the spread to both sides, for counts not below 0. The spread is 1.4826 x the median absolute deviation
    (Hampel, 1974; Leys et al., 2013), which single odd weeks do not widen; of counts and sums at least that of
    independent events, the root of the expected sum of their squares: for a count the root of the expected, or 1. With
    less than three such values the row says "not enough history", and is no anomaly. The last hour or day may not be
    over; it is left out where it has not ended by now (or `as_of`).

    Args:
        event: what is measured; by default every event.
        measure: as of `segmentation`: count, people, sum(x), avg(x), min(x), max(x), distinct(x) or quantile(x, 0.95).
        grain: hour or day.
        seasonality: "week": the same hour of the same weekday. "day": the same hour of other days. "none": the hours or
            days right before.
        history: how many seasons, or hours or days, 3 to 100.
        sensitivity: the width of the band, in spreads; lower finds more.
        start: judged from here on; by default the last seven days.
        end: judged before it; by default now.
        where: SQL over the columns of `events`; without it rollups answer where they can: counts, and people by day.
        cohort: only people of this saved cohort.
        tz: whose hours and weekdays, an IANA name.
        as_of: only what was received up to then.
    """
    calendar = Calendar.of(tz, "monday", grain, ("hour", "day"))
    if seasonality not in _SEASON_DAYS:
        raise QueryRefused(f"seasonality is {str(seasonality)[:40]!r}", hint="Use week, day or none")
    check_limit("history", history, _MOST_HISTORY, least=_LEAST)
    if isinstance(sensitivity, bool) or not isinstance(sensitivity, int | float) or not 0 < sensitivity <= _WIDEST:
        raise QueryRefused(f"sensitivity is {str(sensitivity)[:40]!r}", hint="Give more than 0, up to 100; usual is 3")
    chosen = EventFilter.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    known_us = inquiry.last_us(scope) + 1
    first_us = max(YEAR_1_US, known_us - 7 * _STEP_US["day"]) if scope.start_us is None else scope.start_us
    if (known_us - first_us) // _STEP_US[grain] > _MOST_ROWS:
        raise QueryRefused(f"more than {_MOST_ROWS:,} rows", hint="Judge a shorter range, or days instead of hours")
    bind = Parameters()
    measured = Measure.parse(measure, inquiry.promotions, number=True)
    nothing = "0" if measured.counts or measured.summed is not None else "NULL"
    source, tables = await _source(inquiry, scope, chosen, measured, calendar, grain, bind)
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
            SELECT points.n, coalesce(value, {nothing}) AS value, coalesce(squares, 0) AS squares
            FROM points LEFT JOIN series ON series.n = past WHERE past >= (SELECT min(n) FROM series)
        ), typical AS (
            SELECT coalesce(median(squares / nullif(events, 0)), {1 if measured.counts else 0}) FROM series
        ), judged AS (
            SELECT n, count(*) AS known, median(value) AS expected, {_SPREAD} * mad(CAST(value AS DOUBLE)) AS spread,
                sqrt(greatest(median(squares), (FROM typical))) AS least
            FROM known WHERE value IS NOT NULL GROUP BY n
        )
        SELECT {calendar.start(grain, "t.n")} AS time, coalesce(value, {nothing}) AS value, expected, spread,
            least, coalesce(known, 0) AS known
        FROM targets t LEFT JOIN series USING (n) LEFT JOIN judged USING (n)
        WHERE (SELECT count(*) FROM series WHERE n < {high}) > 0 ORDER BY time
    """
    result = await inquiry.rows(sql, bind, scope, report="anomalies", tables=tables)
    judge = _Judge(sensitivity, history, tz, seasonality, grain, counts=measured.counts)
    return result.named("anomalies", judge.table(result))


async def _source(
    inquiry: ReportContext,
    scope: Scope,
    chosen: EventFilter,
    measured: Measure,
    calendar: Calendar,
    grain: Step,
    bind: Parameters,
) -> tuple[str, Mapping[str, pa.Table] | None]:
    """SQL for `n, value, squares, events` of each period that has events, and the rollups that it reads.

    The values are sums of `events` numbers, whose squares add up to `squares`: 1 for each event that is counted. Both
    are 0 for what is no sum.
    """
    # Only periods that are over are judged, so what comes after the last whole hour, or day, does not matter.
    last_us = scope.end_us if scope.end_us is None else scope.end_us // _STEP_US[grain] * _STEP_US[grain]
    read = scope.between(None, last_us)
    if measured.sql == "count(*)" and chosen.where is None and (grain == "hour" or calendar.tz == "UTC"):
        hours = await inquiry.hours(read)
        if hours is not None:
            number = calendar.number(grain, "hour")
            counted = f"SELECT {number} AS n, CAST(sum(count) AS BIGINT) AS value FROM {HOURLY}"
            counted += f" WHERE {chosen.condition(bind)} GROUP BY n"
            return f"SELECT n, value, value AS squares, value AS events FROM ({counted})", hours
    if (
        measured.sql == "count(DISTINCT person_id)"
        and chosen == EventFilter()
        and (grain, calendar.tz) == ("day", "UTC")
    ):
        days = await inquiry.days(read)
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
    condition = f"{chosen.condition(bind)} AND {scope.between(None, scope.end_us).condition(bind)}"
    return (
        f"SELECT {number} AS n, {value} AS value, {squares} AS squares, {events} AS events "
        f"FROM events WHERE {condition} GROUP BY ALL"
    ), None


class _Judge(msgspec.Struct, frozen=True):
    """Says of each value whether it is odd, and why."""

    sensitivity: float
    history: int
    tz: str
    seasonality: Season
    grain: Step
    counts: bool

    def table(self, result: Result) -> pa.Table:
        """The report's table of the values and what is known of those before."""
        rows = [self._row(row) for row in result]
        names = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
        number = pa.int64() if self.counts else pa.float64()
        kinds = (number, pa.float64(), pa.float64(), pa.float64(), pa.bool_(), pa.string())
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        time = result.arrow().column("time")
        return pa.table([time, *map(pa.array, columns[1:], kinds)], names=list(names))

    def _row(self, row: Any) -> tuple[Any, ...]:
        if row.known < _LEAST:
            reason = f"not enough history: {row.known} of {self.history}"
            return row.time, row.value, None, None, None, False, reason
        expected = float(row.expected)
        width = self.sensitivity * max(row.spread, row.least)
        low, high = expected - width, expected + width
        low = max(0.0, low) if self.counts else low
        if row.value is None:
            return row.time, None, expected, low, high, False, "no value"
        odd = not low <= row.value <= high
        reason = self._reason(row.time, row.value, expected, low, high) if odd else ""
        return row.time, row.value, expected, low, high, odd, reason

    def _reason(self, time: date | datetime, value: float, expected: float, low: float, high: float) -> str:
        """What is odd, in words: "31 is 4.4 x the usual 7 for Tuesdays at 14:00; the band is 0 to 15"."""
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
