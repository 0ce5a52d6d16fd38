"""Metrics: active people and time series, from rollups if they have the answer, otherwise from raw events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from lakebed.clock import DAY_US, MOMENT_HINT, Clock, Moment, from_us, parse_as_of, parse_day, parse_moment
from lakebed.errors import QueryRefused, QueryTooLarge
from lakebed.events.promotions import Promotion
from lakebed.query.bounds import Bounds
from lakebed.query.queries import Queries
from lakebed.query.result import Result
from lakebed.query.router import DAILY, HOURLY, RAW, ROLLED
from lakebed.reports.arguments import OTHER
from lakebed.reports.measure import Measure
from lakebed.reports.series import Series, from_hours
from lakebed.rollups.rollups import Rollups

__all__ = ["Metrics"]

Time = Moment
_MAX_BITMAP_BYTES = 64 << 20  # largest size of the bitmaps that are read at once
_MAX_ROWS_ON_LOOP = 100_000  # rows of hours that the event loop adds up (a millisecond); a query adds up more

_ACTIVE = """
WITH daily AS (
    SELECT CAST(timestamp AS DATE) AS day, person_id, count(*) AS events FROM events
    WHERE timestamp >= $low AND timestamp < $high GROUP BY ALL
), days AS (SELECT CAST(unnest(generate_series($first::DATE, $last::DATE, INTERVAL 1 DAY)) AS DATE) AS date)
SELECT date, count(DISTINCT person_id) AS {measure}, CAST(coalesce(sum(events), 0) AS BIGINT) AS events
FROM days LEFT JOIN daily ON day <= date AND day > date - {width} GROUP BY date ORDER BY date
"""


class Metrics:
    """Active people and time series. Every result is exact, and covers every event acknowledged before the call.

    Args:
        queries: runs SQL over raw events.
        rollups: source of `hourly_events` and `daily_metrics`.
        catch_up: function that brings a rollup, by name, up to date or, at most, a number of seconds behind; returns
            the seq before which the rollup is complete.
        promotions: the promoted columns.
        clock: source of the present.
        max_rows: largest number of rows of a result (`query_max_rows`).
    """

    def __init__(
        self,
        queries: Queries,
        rollups: Rollups,
        catch_up: Callable[[str, float | None], Awaitable[int]],
        *,
        promotions: Sequence[Promotion],
        clock: Clock,
        max_rows: int,
    ) -> None:
        self._queries = queries
        self._rollups = rollups
        self._catch_up = catch_up
        self._promotions = tuple(promotions)
        self._clock = clock
        self._max_rows = max_rows

    async def dau(
        self,
        days: int = 7,
        *,
        start: Time | None = None,
        end: Time | None = None,
        as_of: Time | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Rows `date, dau, events`: number of active people and of events on each day (UTC) from `start` to `end`.

        Args:
            days: number of days if `start` is not given.
            start: first day, included.
            end: last day, included; by default today, or the day of `as_of`.
            as_of: moment of the answer: only events received up to then count; the answer is computed from raw events.
            max_staleness: seconds by which the answer may lag behind the newest events; by default none.

        Raises:
            QueryRefused: a day is not valid, or `start` lies after `end`.
            InvalidAsOf: `as_of` is not a moment, or lies in the future.
        """
        return await self._active("dau", 1, days, start, end, as_of, max_staleness)

    async def wau(
        self,
        days: int = 7,
        *,
        start: Time | None = None,
        end: Time | None = None,
        as_of: Time | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Rows `date, wau, events`: people and events of the 7 days that end with `date`. Arguments as for `dau`."""
        return await self._active("wau", 7, days, start, end, as_of, max_staleness)

    async def mau(
        self,
        days: int = 7,
        *,
        start: Time | None = None,
        end: Time | None = None,
        as_of: Time | None = None,
        max_staleness: float | None = None,
    ) -> Result:
        """Rows `date, mau, events`: people and events of the 30 days that end with `date`. Arguments as for `dau`."""
        return await self._active("mau", 30, days, start, end, as_of, max_staleness)

    async def _active(
        self,
        measure: str,
        width: int,
        days: int,
        start: Time | None,
        end: Time | None,
        as_of: Time | None,
        max_staleness: float | None,
    ) -> Result:
        now_us = self._clock.now_us()
        as_of_us = parse_as_of(as_of, now_us)
        first, last = self._days(days, start, end, now_us if as_of_us is None else as_of_us)
        low_us = parse_moment(first - timedelta(days=width - 1))
        if as_of_us is None:
            return await self._active_now(measure, width, first, last, max_staleness)
        high_us = parse_moment(last) + DAY_US
        params = {"low": from_us(low_us), "high": from_us(high_us), "first": first, "last": last}
        bounds = (Bounds(low_us, high_us - 1),)
        sql = _ACTIVE.format(measure=measure, width=width)
        return await self._queries.ask(sql, params, as_of_us=as_of_us, bounds=bounds)

    async def _active_now(
        self, measure: str, width: int, first: date, last: date, max_staleness: float | None
    ) -> Result:
        started = self._clock.monotonic()
        end_seq = await self._catch_up(DAILY, max_staleness)
        dates = [first + timedelta(days=day) for day in range((last - first).days + 1)]
        windows = [(parse_moment(day) - (width - 1) * DAY_US, parse_moment(day) + DAY_US) for day in dates]
        table = await self._rollups.table(DAILY, windows[0][0], windows[-1][1])
        days = dict(zip(table["date"].to_pylist(), zip(table["events"].to_pylist(), table["dau"].to_pylist())))  # noqa: B905
        events = [sum(days.get(day - timedelta(days=back), (0, 0))[0] for back in range(width)) for day in dates]
        if width == 1:
            people = [days.get(day, (0, 0))[1] for day in dates]
        else:
            people = await self._rollups.distinct(DAILY, "dau", windows)
        return Result(
            pa.table(
                [pa.array(dates, pa.date32()), pa.array(people, pa.int64()), pa.array(events, pa.int64())],
                names=["date", measure, "events"],
            ),
            tiers=("L2",),
            seq=(0, end_seq),
            elapsed_ms=(self._clock.monotonic() - started) * 1000,
        )

    def _days(self, days: int, start: Time | None, end: Time | None, today_us: int) -> tuple[date, date]:
        last = from_us(today_us).date() if end is None else _day(end)
        if start is None and (not isinstance(days, int) or days < 1):
            raise QueryRefused(f"`days` is {days!r}", hint="Give a number of days, 1 or more")
        try:
            first = last - timedelta(days=days - 1) if start is None else _day(start)
        except OverflowError:
            raise QueryRefused(f"{days} days before {last} lies before the year 1", hint="Give fewer days") from None
        if first > last:
            raise QueryRefused(f"`start` {first} lies after `end` {last}", hint="Give an earlier start, or a later end")
        self._check_size((last - first).days + 1)
        return first, last

    def _check_size(self, rows: int) -> None:
        if rows > self._max_rows:
            raise QueryTooLarge(
                f"the result would have {rows} rows, the limit is {self._max_rows} (query_max_rows)",
                hint="Choose a shorter range or a coarser grain",
                limit=self._max_rows,
            )

    async def timeseries(
        self,
        event: str | None = None,
        *,
        start: Time,
        end: Time,
        grain: str = "hour",
        by: str | Sequence[str] | None = None,
        measure: str = "count",
        where: str | None = None,
        as_of: Time | None = None,
    ) -> Result:
        """Rows `time, value` and the columns of `by`, in order of time and `by`, for the events in `[start, end)`.

        If `by` is None and the measure counts, a bucket without events is a row with 0; otherwise it has no row. The
        first and the last bucket hold only the events within the range.

        Args:
            event: name of the events to measure; None takes all.
            start: first moment of the range, included: an aware datetime, a date or ISO 8601 text (UTC by default).
            end: end of the range, excluded; given like `start`.
            grain: length of a bucket: "minute", "hour", "day", "week" (from Monday) or "month", in UTC.
            by: columns, promoted columns or top-level properties (as text) to split by.
            measure: measure as in `Measure.parse`.
            where: SQL condition over the columns of `events`. The condition is trusted, like the SQL of `query`.
            as_of: moment of the answer: only events received up to then count.

        Raises:
            QueryRefused: an argument is not valid, or names something that does not exist.
            QueryError: `where` is not valid SQL; with DuckDB's message.
            QueryTooLarge: there would be more than `query_max_rows` rows.
            InvalidAsOf: `as_of` is not a moment, or lies in the future.
        """
        started = self._clock.monotonic()
        series = Series.of(
            event=event,
            start=start,
            end=end,
            grain=grain,
            by=by,
            measure=Measure.parse(measure, self._promotions),
            where=where,
            as_of_us=parse_as_of(as_of, self._clock.now_us()),
            promotions=self._promotions,
        )
        self._check_size(series.least_rows)
        # A subquery in `where` may read events of other times than the series.
        open_ended = where is not None and bool((await self._queries.check_expression(where)).tables)
        end_seq, rolled = await self._hours(series) if series.has_rollup else (0, None)
        slices = series.slices(rolled=rolled is not None)
        whole = rolled is not None and series.is_filled and all(piece.tier == ROLLED for piece in slices)
        if rolled is not None and whole and rolled.num_rows <= _MAX_ROWS_ON_LOOP:
            elapsed_ms = (self._clock.monotonic() - started) * 1000
            return Result(from_hours(series, rolled), tiers=(ROLLED,), seq=(0, end_seq), elapsed_ms=elapsed_ms)
        raw = [Bounds(piece.start_us, piece.end_us - 1) for piece in slices if piece.tier == RAW]
        return await self._queries.ask(
            series.sql(slices),
            series.params(slices),
            as_of_us=series.as_of_us,
            tables=None if rolled is None else {HOURLY: rolled},
            bounds=None if open_ended else raw,
            started=started,
        )

    async def hours(self, start_us: int | None, end_us: int | None) -> pa.Table | None:
        """The rows of `hourly_events` in `[start_us, end_us)`, with every event acknowledged before the call.

        Returns None if event names are missing, because an hour had more than `rollup_max_groups`.
        """
        await self._catch_up(HOURLY, None)
        table = await self._rollups.table(HOURLY, start_us, end_us)
        import pyarrow.compute as pc  # a quarter of the time that importing pyarrow takes

        return None if pc.any(pc.equal(table["event"], OTHER)).as_py() else table

    async def days(self, start_us: int | None, end_us: int | None) -> pa.Table:
        """The rows of `daily_metrics` in `[start_us, end_us)`, with every event acknowledged before the call."""
        await self._catch_up(DAILY, None)
        return await self._rollups.table(DAILY, start_us, end_us)

    async def daily_people(
        self, start_us: int | None, end_us: int | None, compute: Callable[[Iterator[tuple[int, Any]]], pa.Table | None]
    ) -> Result | None:
        """The result of `compute`, in a thread, over the UTC days that start in `[start_us, end_us)` and have people.

        `compute` gets pairs: a day's number since 1970, and a bitmap of its people. Returns None if `compute` does, or
        if the bitmaps take too much memory.
        """
        started = self._clock.monotonic()
        end_seq = await self._catch_up(DAILY, None)

        def of_days(buckets: Iterator[tuple[int, Any]]) -> pa.Table | None:
            return compute((start // DAY_US, people) for start, people in buckets)

        table = await self._rollups.bitmaps(DAILY, "dau", start_us, end_us, of_days, max_bytes=_MAX_BITMAP_BYTES)
        elapsed_ms = (self._clock.monotonic() - started) * 1000
        return None if table is None else Result(table, tiers=(ROLLED,), seq=(0, end_seq), elapsed_ms=elapsed_ms)

    async def _hours(self, series: Series) -> tuple[int, pa.Table | None]:
        """The seq before which `hourly_events` is complete, and its rows of the whole hours within the series.

        The table is None if the series has no whole hours, or event names are missing in them.
        """
        hours = [piece for piece in series.slices(rolled=True) if piece.tier == ROLLED]
        if not hours:
            return 0, None
        end_seq = await self._catch_up(HOURLY, None)
        table = await self._rollups.table(HOURLY, hours[0].start_us, hours[-1].end_us)
        if series.event is None and not series.by:
            return end_seq, table
        import pyarrow.compute as pc  # a quarter of the time that importing pyarrow takes

        return end_seq, None if pc.any(pc.equal(table["event"], OTHER)).as_py() else table


def _day(value: Moment) -> date:
    try:
        return parse_day(value)
    except ValueError as error:
        raise QueryRefused(f"`day`: {error}", hint=MOMENT_HINT) from error
