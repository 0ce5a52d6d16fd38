"""ReportContext: what a report needs to run. An object has two: one trusts caller SQL, one runs it in the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.clock import YEAR_1_US, Clock, from_us, parse_as_of
from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion
from lakebed.query.queries import Queries
from lakebed.query.result import Result
from lakebed.query.router import DAILY, HOURLY, rollup_answers, whole_buckets
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries
from lakebed.reports.cohort import Cohort
from lakebed.reports.metrics import Metrics
from lakebed.reports.scope import EventFilter, Parameters, Scope, Time, instant

__all__ = ["Counts", "ReportContext"]


class Counts(msgspec.Struct, frozen=True):
    """Numbers of events by time and name.

    Attributes:
        source: SQL of a table `timestamp, event, weight`.
        tables: the rollups that it reads; for `ReportContext.rows`.
        span: the first and the last hour in `tables`, microseconds.
    """

    source: str
    tables: Mapping[str, pa.Table]
    span: tuple[int, int]


class ReportContext:
    """Runs the SQL of reports over all events of one object.

    Args:
        queries: runs trusted SQL.
        metrics: reads the rollups.
        cohort: function that returns a saved cohort by name, as it was defined before a moment (None: now). Raises
            QueryRefused.
        promotions: the promoted columns.
        clock: source of the present.
        untrusted: runs SQL in which a part came over the network.
        trusting: whether the arguments come from the app; else `untrusted` runs everything that reads raw events.
    """

    def __init__(
        self,
        queries: Queries,
        metrics: Metrics,
        cohort: Callable[[str, int | None], Awaitable[Cohort]],
        promotions: Sequence[Promotion],
        clock: Clock,
        untrusted: UntrustedQueries,
        *,
        trusting: bool,
    ) -> None:
        self.promotions = tuple(promotions)
        self._metrics = metrics
        self.clock = clock
        self._queries = queries
        self._untrusted = untrusted
        self._trusting = trusting
        self._cohort = cohort

    async def scope(
        self,
        *,
        start: Time | None = None,
        end: Time | None = None,
        where: str | None = None,
        cohort: str | None = None,
        as_of: Time | None = None,
        filters: Sequence[EventFilter] = (),
    ) -> Scope:
        """The scope of the common arguments of a report.

        The conditions of `where` and of `filters` are checked: each is one expression that only reads.

        Raises:
            QueryRefused: an argument is not valid, or there is no such cohort.
            QueryError: a condition is not valid SQL; with DuckDB's message.
            InvalidAsOf: as for `query`.
        """
        as_of_us = parse_as_of(as_of, self.clock.now_us())
        start_us, end_us = instant("start", start), instant("end", end)
        if start_us is not None and end_us is not None and start_us > end_us:
            raise QueryRefused(f"start {start} lies after end {end}", hint="start is included, end is not")
        if end_us == YEAR_1_US:
            raise QueryRefused(f"end is {end}, the earliest time there is", hint="end is excluded: give a later one")
        for condition in (where, *(selection.where for selection in filters)):
            if condition is not None:
                await self.check_condition(condition)
        people = None if cohort is None else await self._cohort(cohort, as_of_us)
        if people is None:
            return Scope(start_us, end_us, where, as_of_us=as_of_us)
        return Scope(start_us, end_us, where, people.sql, people.untrusted, as_of_us)

    def last_us(self, scope: Scope) -> int:
        """The last microsecond that a report covers: now, or `as_of`, or the one before `end`."""
        known = self.clock.now_us() if scope.as_of_us is None else scope.as_of_us
        return known if scope.end_us is None else min(known, scope.end_us - 1)

    async def hours(self, scope: Scope) -> Mapping[str, pa.Table] | None:
        """`hourly_events` (`hour, event, count`) as a table for `rows`, if it holds exactly the events of `scope`.

        Else None: for parts of an hour, a condition, a cohort or another moment, or where names are missing in it.
        """
        if not _rollup_answers(HOURLY, scope):
            return None
        table = await self._metrics.hours(scope.start_us, scope.end_us)
        return None if table is None else {HOURLY: table}

    async def days(self, scope: Scope) -> Mapping[str, pa.Table] | None:
        """`daily_metrics` (`date, events, dau`) as a table for `rows`, if it holds exactly the people of `scope`.

        Else None: for parts of a day of UTC, a condition, a cohort or another moment.
        """
        if not _rollup_answers(DAILY, scope):
            return None
        return {DAILY: await self._metrics.days(scope.start_us, scope.end_us)}

    async def daily_people(
        self, scope: Scope, compute: Callable[[Iterator[tuple[int, Any]]], pa.Table | None], *, report: str
    ) -> Result | None:
        """The table that `compute` makes of the people of each UTC day in `scope`: see `Metrics.daily_people`.

        None where `days` returns None.
        """
        if not _rollup_answers(DAILY, scope):
            return None
        result = await self._metrics.daily_people(scope.start_us, scope.end_us, compute)
        return None if result is None else result.named(report)

    async def counts(self, scope: Scope, bind: Parameters) -> Counts | None:
        """The numbers of events by time and name: whole hours come from the rollup, the rest from raw events.

        None where a condition, a cohort or another moment restricts the events, where the range has no whole hour, or
        where names are missing in the rollup.
        """
        start_us, end_us = scope.start_us, scope.end_us
        whole = whole_buckets(HOURLY, start_us, end_us)
        hours = None if whole is None else await self.hours(scope.between(*whole))
        if whole is None or hours is None:
            return None
        low_us, high_us = whole
        sources = [f'SELECT hour AS timestamp, event, "count" AS weight FROM {HOURLY}']
        for edge in ((start_us, low_us), (high_us, end_us)):
            if edge[0] != edge[1]:
                condition = scope.between(*edge).condition(bind)
                sources.append(f"SELECT timestamp, event, 1 AS weight FROM events WHERE {condition}")
        times = hours[HOURLY]["hour"].cast(pa.int64()).to_pylist()
        return Counts(f"({' UNION ALL '.join(sources)})", hours, (min(times, default=0), max(times, default=0)))

    async def check_condition(self, condition: str) -> None:
        """Raise QueryRefused or QueryError unless `condition` is one SQL expression that only reads."""
        if not isinstance(condition, str):
            raise QueryRefused(f"where is {str(condition)[:40]!r}", hint="Give a condition in SQL: \"plan = 'pro'\"")
        await self._queries.check_expression(condition)

    async def check_cohort(self, cohort: Cohort) -> None:
        """Raise QueryError unless reports can use this cohort: its names, types and functions are checked."""
        bind = Parameters()
        sql = f"SELECT person_id FROM events WHERE person_id IN ({cohort.sql(bind)}) LIMIT 0"
        await self.rows(sql, bind, Scope(untrusted=cohort.untrusted), report="")

    async def rows(
        self,
        sql: str,
        bind: Parameters,
        scope: Scope,
        *,
        report: str,
        tables: Mapping[str, pa.Table] | None = None,
        started: float | None = None,
    ) -> Result:
        """The result of the SQL of a report.

        Args:
            sql: statement over `events`, `people`, or the `tables`. Which files are read follows from its conditions.
            bind: parameters of the statement.
            scope: scope of the report, for its `as_of` and whether its SQL is trusted.
            report: name of the report.
            tables: rollups by name; a statement that reads them has no SQL of a caller in it.
            started: time of the monotonic clock, if the report began before this call.

        Raises:
            QueryError, QueryTimeout, QueryTooLarge, QueryBusy, QueryCrashed.
        """
        if scope.untrusted or (tables is None and not self._trusting):
            as_of = None if scope.as_of_us is None else from_us(scope.as_of_us)
            result = await self._untrusted.run(sql, bind.params, as_of=as_of)
        else:
            result = await self._queries.ask(sql, bind.params, as_of_us=scope.as_of_us, tables=tables, started=started)
        return result.named(report)


def _rollup_answers(rollup: str, scope: Scope) -> bool:
    filtered = scope.where is not None or scope.people is not None
    return rollup_answers(rollup, scope.start_us, scope.end_us, filtered=filtered, as_of_us=scope.as_of_us)
