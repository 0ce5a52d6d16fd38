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
        source: SQL of a subquery with columns `timestamp, event, weight`; `weight` is a number of events.
        tables: the rollups that `source` reads, by name; pass them to `ReportContext.rows`.
        span: starts of the first and of the last hour in `tables`, microseconds; 0 and 0 if there is none.
    """

    source: str
    tables: Mapping[str, pa.Table]
    span: tuple[int, int]


class ReportContext:
    """Runs the SQL of reports over all events of one object.

    Args:
        queries: runs trusted SQL.
        metrics: reads the rollups.
        cohort: function that returns a saved cohort by name, as defined at a moment (microseconds; None: now). It
            raises QueryRefused if there is none.
        promotions: the promoted columns.
        clock: source of the present.
        untrusted: runs SQL of which a part came over the network.
        trusting: whether the arguments come from the app. If not, `untrusted` runs every statement over raw events.
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
        """The `Scope` made of the arguments that reports have in common.

        Checks that `where` and the condition of each filter are one SQL expression each, which only reads.

        Raises:
            QueryRefused: an argument is not valid, or there is no such cohort.
            QueryError: a condition is not valid SQL; with DuckDB's message.
            InvalidAsOf: as for `query`.
        """
        as_of_us = parse_as_of(as_of, self.clock.now_us())
        start_us, end_us = instant("start", start), instant("end", end)
        if start_us is not None and end_us is not None and start_us > end_us:
            raise QueryRefused(f"`start` {start} lies after `end` {end}", hint="Give an earlier start, or a later end")
        if end_us == YEAR_1_US:
            raise QueryRefused(f"`end` is {end}, the earliest time there is", hint="Give a later one: it is excluded")
        for condition in (where, *(selection.where for selection in filters)):
            if condition is not None:
                await self.check_condition(condition)
        people = None if cohort is None else await self._cohort(cohort, as_of_us)
        if people is None:
            return Scope(start_us, end_us, where, as_of_us=as_of_us)
        return Scope(start_us, end_us, where, people.sql, people.untrusted, as_of_us)

    def last_us(self, scope: Scope) -> int:
        """The last microsecond that a report covers: now (or `as_of`), or the one before `end` if that is earlier."""
        known = self.clock.now_us() if scope.as_of_us is None else scope.as_of_us
        return known if scope.end_us is None else min(known, scope.end_us - 1)

    async def hours(self, scope: Scope) -> Mapping[str, pa.Table] | None:
        """The rollup `hourly_events` (`hour, event, count`) in `scope`, to be passed to `rows` as `tables`.

        Returns None if `scope` cuts an hour or has a condition, a cohort or an `as_of`, or if the rollup lacks names.
        """
        if not _rollup_answers(HOURLY, scope):
            return None
        table = await self._metrics.hours(scope.start_us, scope.end_us)
        return None if table is None else {HOURLY: table}

    async def days(self, scope: Scope) -> Mapping[str, pa.Table] | None:
        """The rollup `daily_metrics` (`date, events, dau`) in `scope`, to be passed to `rows` as `tables`.

        Returns None if `scope` cuts a UTC day, or has a condition, a cohort or an `as_of`.
        """
        if not _rollup_answers(DAILY, scope):
            return None
        return {DAILY: await self._metrics.days(scope.start_us, scope.end_us)}

    async def daily_people(
        self, scope: Scope, compute: Callable[[Iterator[tuple[int, Any]]], pa.Table | None], *, report: str
    ) -> Result | None:
        """The result of `compute` over the people of each UTC day in `scope`: see `Metrics.daily_people`.

        Returns None if `days` would return None for `scope`, or if `Metrics.daily_people` returns None.
        """
        if not _rollup_answers(DAILY, scope):
            return None
        result = await self._metrics.daily_people(scope.start_us, scope.end_us, compute)
        return None if result is None else result.named(report)

    async def counts(self, scope: Scope, bind: Parameters) -> Counts | None:
        """SQL for the number of events by time and name: whole hours come from the rollup, the rest from raw events.

        Returns None if `scope` has a condition, a cohort, an `as_of` or no whole hour, or if the rollup lacks names.
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
            raise QueryRefused(f"`where` is {str(condition)[:40]!r}", hint="Give a condition in SQL: \"plan = 'pro'\"")
        await self._queries.check_expression(condition)

    async def check_cohort(self, cohort: Cohort) -> None:
        """Raise QueryError if DuckDB refuses the cohort's SQL: a name, a type or a function in it is wrong."""
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
        """Run the SQL of a report and return its result.

        Args:
            sql: statement over `events`, `people`, or the `tables`. Its conditions decide which files are read.
            bind: parameters of the statement.
            scope: scope of the report; its `as_of` applies, and with its `untrusted` the SQL runs in the sandbox.
            report: name of the report.
            tables: rollups by name. A statement that reads rollups must not contain SQL of a caller.
            started: start of the report by the monotonic clock; None if the report starts with this call.

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
