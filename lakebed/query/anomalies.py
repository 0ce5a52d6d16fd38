"""Anomalies: hours and days that are not as the same hour or day of the weeks before leads one to expect."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.query.binder import Binder
from lakebed.query.calendar import Calendar
from lakebed.query.inquiry import Inquiry
from lakebed.query.limit import check_limit
from lakebed.query.result import Result
from lakebed.query.scope import Time
from lakebed.query.selection import EventLike, Selection
from lakebed.query.series import HOURLY

__all__ = ["anomalies"]

Step = Literal["hour", "day"]
Season = Literal["week", "day"]
_US = 1_000_000
_STEP_US = {"hour": 3600 * _US, "day": 86_400 * _US}
_SEASON_DAYS = {"week": 7, "day": 1}
_LEAST = 3
_MOST_ROWS = 10_000
_MOST_HISTORY = 100
_WIDEST = 100  # no count is so far out
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_SPREAD = 1.4826  # of a normal distribution, its standard deviation is so many times its MAD


async def anomalies(
    inquiry: Inquiry,
    event: EventLike | None = None,
    *,
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
    """Rows `time, value, expected, low, high, is_anomaly, reason`: each count beside the counts that it is judged by.

    These are the counts at the same wall-clock time of `history` seasons before; what lies before the first event is
    none of them, an hour without events is a 0. `expected` is their median, and the band goes `sensitivity` times the
    spread to both sides, not below 0. The spread is 1.4826 x the median absolute deviation (Hampel, 1974; Leys et al.,
    2013), which single odd weeks do not widen, and at least that of a Poisson count, the root of the expected, or 1.
    With less than three such counts the row says "not enough history", and is no anomaly. The last hour or day may not
    be over; it is left out where it has not ended by now (or `as_of`).

    Args:
        event: what is counted; by default every event.
        grain: hour or day.
        seasonality: "week": the same hour of the same weekday. "day": the same hour of other days.
        history: how many seasons, 3 to 100.
        sensitivity: the width of the band, in spreads; lower finds more.
        start: judged from here on; by default the last seven days.
        end: judged before it; by default now.
        where: SQL over the columns of `events`; without it the rollup of hours answers.
        cohort: only people of this saved cohort.
        tz: whose hours and weekdays, an IANA name.
        as_of: only what was received up to then.
    """
    calendar = Calendar.of(tz, "monday", grain, ("hour", "day"))
    if seasonality not in _SEASON_DAYS:
        raise QueryRefused(f"seasonality is {str(seasonality)[:40]!r}", hint="Use week or day")
    check_limit("history", history, _MOST_HISTORY, least=_LEAST)
    if isinstance(sensitivity, bool) or not isinstance(sensitivity, int | float) or not 0 < sensitivity <= _WIDEST:
        raise QueryRefused(f"sensitivity is {str(sensitivity)[:40]!r}", hint="Give more than 0, up to 100; usual is 3")
    chosen = Selection.of(event)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, selections=(chosen,))
    known_us = inquiry.last_us(scope) + 1
    first_us = known_us - 7 * _STEP_US["day"] if scope.start_us is None else scope.start_us
    if (known_us - first_us) // _STEP_US[grain] > _MOST_ROWS:
        raise QueryRefused(f"more than {_MOST_ROWS:,} rows", hint="Judge a shorter range, or days instead of hours")
    # Only periods that are over are judged, so what comes after the last whole hour does not matter.
    last_us = scope.end_us if scope.end_us is None else scope.end_us // _STEP_US["hour"] * _STEP_US["hour"]
    rolled = chosen.where is None and (grain == "hour" or tz == "UTC")
    hours = await inquiry.hours(scope.between(None, last_us)) if rolled else None
    bind = Binder()
    if hours is not None:
        source, count, column, condition = HOURLY, "sum(count)", "hour", chosen.condition(bind)
    else:
        source, count, column = "events", "count(*)", "timestamp"
        condition = f"{chosen.condition(bind)} AND {scope.between(None, scope.end_us).condition(bind)}"
    zone = bind(tz)
    moment = calendar.instant(grain, "t.n")
    before = f"timezone({zone}, timezone({zone}, {moment}) - k * INTERVAL {_SEASON_DAYS[seasonality]} DAY)"
    low, high = (calendar.number(grain, bind(from_us(us))) for us in (first_us, known_us))
    sql = f"""
        WITH series AS (
            SELECT {calendar.number(grain, column)} AS n, CAST({count} AS BIGINT) AS value FROM {source}
            WHERE {condition} GROUP BY n
        ), targets AS (SELECT unnest(generate_series({low}, {high} - 1)) AS n),
        seasons AS (SELECT unnest(generate_series(1, {bind(history)})) AS k),
        points AS (SELECT t.n, {calendar.number(grain, before)} AS past FROM targets t CROSS JOIN seasons),
        judged AS (
            SELECT points.n, count(*) AS known, median(coalesce(value, 0)) AS expected,
                {_SPREAD} * mad(CAST(coalesce(value, 0) AS DOUBLE)) AS spread
            FROM points LEFT JOIN series ON series.n = past
            WHERE past >= (SELECT min(n) FROM series) GROUP BY points.n
        )
        SELECT {calendar.start(grain, "t.n")} AS time, coalesce(value, 0) AS value, expected, spread,
            coalesce(known, 0) AS known
        FROM targets t LEFT JOIN series USING (n) LEFT JOIN judged USING (n)
        WHERE (SELECT count(*) FROM series) > 0 ORDER BY time
    """
    result = await inquiry.rows(sql, bind, scope, report="anomalies", tables=hours)
    return result.named("anomalies", _judged(result, sensitivity, history, tz, seasonality))


def _judged(result: Result, sensitivity: float, history: int, tz: str, seasonality: str) -> pa.Table:
    """The report's table of the counts and what is known of those before."""
    rows = [_row(row, sensitivity, history, tz, seasonality) for row in result]
    names = ("time", "value", "expected", "low", "high", "is_anomaly", "reason")
    kinds = (pa.int64(), pa.float64(), pa.float64(), pa.float64(), pa.bool_(), pa.string())
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    time = result.arrow().column("time")
    return pa.table([time, *map(pa.array, columns[1:], kinds)], names=list(names))


def _row(row: Any, sensitivity: float, history: int, tz: str, seasonality: str) -> tuple[Any, ...]:
    if row.known < _LEAST:
        return row.time, row.value, None, None, None, False, f"not enough history: {row.known} of {history}"
    expected = float(row.expected)
    width = sensitivity * max(row.spread, expected**0.5, 1.0)
    low, high = max(0.0, expected - width), expected + width
    odd = not low <= row.value <= high
    reason = _reason(row.time, row.value, expected, low, high, tz, seasonality) if odd else ""
    return row.time, row.value, expected, low, high, odd, reason


def _reason(time: date | datetime, value: int, expected: float, low: float, high: float, tz: str, season: str) -> str:
    """What is odd, in words: "31 is 4.4 x the usual 7 for Tuesdays at 14:00; the band is 0 to 15"."""
    local = time.astimezone(ZoneInfo(tz)) if isinstance(time, datetime) else time
    when = _DAYS[local.weekday()] if season == "week" else "other days"
    if isinstance(local, datetime):
        when += f" at {local:%H:%M}"
    times = f"{value / expected:.1f} x the usual {expected:,.4g} for" if expected else "where nothing is usual on"
    return f"{value:,} is {times} {when}; the band is {low:,.4g} to {high:,.4g}"
