"""Trusted SQL: one read-only SELECT at a time on each of two threads, with limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakebed.clock import Clock, Moment, parse_as_of
from lakebed.concurrency import Worker
from lakebed.errors import ObjectClosed, QueryError, QueryRefused, QueryTimeout, QueryTooLarge
from lakebed.histogram import SECONDS, Histogram
from lakebed.query.bounds import UNBOUNDED, Bounds, find_bounds
from lakebed.query.event_history import EventHistory
from lakebed.query.relation import Relation, counted, with_count
from lakebed.query.request import Parameters, QueryRequest, Sources
from lakebed.query.result import Result
from lakebed.query.running_query import RunningQuery
from lakebed.query.statement import Statement
from lakebed.query.views import VIEWS
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine

if TYPE_CHECKING:
    import duckdb

__all__ = ["Queries"]

_BUILT_IN_ROLLUPS = ("hourly_events", "daily_metrics")
_INTERRUPT_EVERY_S = 0.02  # DuckDB loses an interrupt that comes between two of its statements
_GRACE_S = 1.0  # a single call of a scalar function cannot be interrupted
_CACHED_STATEMENTS = 256
_CACHED_CHARACTERS = 4096  # longer statements are not cached


class Queries:
    """Answers SQL over all events and rollups of one object.

    Args:
        history: the events.
        engine: runs the SQL.
        settings: the limits whose names begin with `query_`.
        clock: measures elapsed time, and is the present for `as_of`.
        name: name of the object, for threads and messages.
        tables: awaited with names of rollups; returns their tables, which include every acknowledged event.
        rollups: names of the object's own rollups.
        people: awaited with a seq; returns the table of identity and person_id by the events before that seq. None
            means that every identity is a person.
    """

    def __init__(
        self,
        history: EventHistory,
        engine: SqlEngine,
        settings: Settings,
        clock: Clock,
        *,
        name: str,
        tables: Callable[[set[str]], Awaitable[Mapping[str, pa.Table]]],
        rollups: Iterable[str] = (),
        people: Callable[[int], Awaitable[pa.Table]] | None = None,
    ) -> None:
        self._history = history
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._name = name
        self._tables = tables
        self._people = people
        self._rollups = {rollup.lower(): rollup for rollup in (*_BUILT_IN_ROLLUPS, *rollups)}
        # Two threads: a short query does not wait behind one long one. DuckDB itself uses the cores within each.
        self._worker = Worker(f"query-{name}", threads=2)
        self._running: dict[asyncio.Task[Result], RunningQuery] = {}
        self._statements: dict[str, Statement] = {}  # by their text
        self._closed = False
        self.seconds = Histogram(SECONDS)  # durations of all queries, stopped ones included

    @property
    def known_tables(self) -> tuple[str, ...]:
        """The names of the tables that SQL may use."""
        return ("events", "people", *self._rollups.values())

    async def run(
        self,
        sql: str,
        params: Parameters | None = None,
        *,
        as_of: Moment | None = None,
        snapshot: int | str | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is DuckDB that must be stopped, not the await
    ) -> Result:
        """Run one read-only SELECT over `events`, `people`, `hourly_events`, `daily_metrics` and this object's rollups.

        The answer has every event acknowledged before the call. The SQL is trusted: it cannot write, but it can read
        other files with DuckDB's own functions. Use `query_untrusted` for SQL that you did not write. `now()` is the
        machine's clock. Cancelling the await stops the query.

        Args:
            sql: one SELECT. The order of rows is defined only by an ORDER BY.
            params: a sequence for `?`, or a mapping for `$name`; aware datetimes are TIMESTAMPTZ.
            as_of: aware datetime or ISO 8601 text (UTC if it has no zone): the answer as it was at that moment.
            snapshot: Iceberg snapshot id or tag: only the events of that snapshot.
            limit: limit of rows.
            timeout: seconds; default `query_timeout_s`.

        Raises:
            QueryRefused: the SQL is not one read-only SELECT, names an unknown table, or a rollup as of another moment.
            QueryError: DuckDB's message.
            QueryTimeout, QueryTooLarge: the query exceeded a limit. There is no partial answer.
            InvalidAsOf: `as_of` is not a moment, or lies in the future.
            SnapshotExpired: the snapshot does not exist any more.
        """
        return await self._supervise(self.request(sql, params, as_of, snapshot, limit), timeout)

    def request(
        self, sql: str, params: Parameters | None, as_of: Moment | None, snapshot: int | str | None, limit: int | None
    ) -> QueryRequest:
        """Make a request from arguments of `run`, checked as far as possible without parsing. Raises as `run` does."""
        as_of_us = parse_as_of(as_of, self._clock.now_us())
        if as_of_us is not None and snapshot is not None:
            raise QueryRefused("`as_of` and `snapshot` were both given", hint="Give one: a snapshot fixes the time")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryRefused(f"`limit` is {limit!r}", hint="Give a number of rows, 0 or more")
        return QueryRequest(sql, _for_duckdb(params), as_of_us, snapshot, limit)

    async def ask(
        self,
        sql: str,
        params: Parameters | None = None,
        *,
        as_of_us: int | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        bounds: Sequence[Bounds] | None = None,
        started: float | None = None,
        documents: bool = False,
    ) -> Result:
        """Run SQL that Lakebed generated. The answer is like that of `run`.

        Args:
            sql: as for `run`.
            params: as for `run`.
            as_of_us: microseconds; not in the future.
            tables: rollup tables that the caller has read already; they may be parts of rollups.
            bounds: timestamps that the SQL reads, if the caller knows them better than the SQL shows.
            started: monotonic seconds at which the caller's work began, for `elapsed_ms`.
            documents: whether the table `events` has documents, beside events.
        """
        request = QueryRequest(
            sql, params, as_of_us, tables=tables, bounds=bounds, started=started, documents=documents
        )
        return await self._supervise(request, None)

    async def check_expression(self, sql: str) -> Statement:
        """Parse `sql`, which must be one expression that only reads. The result names the tables in it.

        Raises:
            QueryRefused, QueryError: `sql` is not one expression that only reads.
        """
        return await self._worker.run(self._parse, RunningQuery(), f"SELECT\n{sql}")

    async def _supervise(self, request: QueryRequest, timeout: float | None) -> Result:  # noqa: ASYNC109 - see run
        if self._closed:
            raise ObjectClosed(f"{self._name} is closed", hint="Open the object first")
        seconds = self._settings.query_timeout_s if timeout is None else timeout
        running = RunningQuery()
        began = self._clock.monotonic()
        task = asyncio.get_running_loop().create_task(self._answer(running, request))
        self._running[task] = running
        task.add_done_callback(self._finished)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            self.seconds.observe(self._clock.monotonic() - began)
            late = not task.done()
            self._stop(task, running)
        if late:
            await asyncio.wait({task}, timeout=_GRACE_S)
            raise QueryTimeout(
                f"the query ran longer than {seconds:g} s",
                hint="Pass timeout=, or narrow its WHERE to fewer days",
                limit=seconds,
            )
        return task.result()

    def _stop(self, task: asyncio.Task[Result], running: RunningQuery) -> None:
        if not task.done():
            running.stop()
            asyncio.get_running_loop().call_later(_INTERRUPT_EVERY_S, self._stop, task, running)

    def _finished(self, task: asyncio.Task[Result]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # read the error: asyncio logs unread ones, even if no caller waits any more

    async def _answer(self, running: RunningQuery, request: QueryRequest) -> Result:
        started = self._clock.monotonic() if request.started is None else request.started
        statement = await self._statement(running, request.sql)
        async with self.sources(statement.tables, request, mentions_person=statement.mentions_person) as sources:
            table, relation = await self._worker.run(self._execute, running, request, statement, sources)
        return sources.result(table, relation, (self._clock.monotonic() - started) * 1000)

    @asynccontextmanager
    async def sources(
        self, named: Collection[str], request: QueryRequest, *, mentions_person: bool
    ) -> AsyncIterator[Sources]:
        """The data for a query over the tables `named`. It stays unchanged while the context is open."""
        views = {name for name in set(named) & set(VIEWS) if name == "people" or request.is_past}
        end_seq = self._history.next_seq
        rollups = await self._rollup_tables(set(named) - views, request)
        async with AsyncExitStack() as stack:
            cut, people = None, None
            if views or "events" in named:
                cut = self._history.cut(as_of_us=request.as_of_us, snapshot=request.snapshot)
                await stack.enter_async_context(cut)
                if self._people is not None and (mentions_person or views & {"people", "daily_metrics"}):
                    people = await self._people(cut.end_seq)
            yield Sources(cut, rollups, people, frozenset(views), end_seq, request.as_of_us)

    async def _rollup_tables(self, named: set[str], request: QueryRequest) -> Mapping[str, pa.Table]:
        if request.tables is not None:
            return request.tables
        names = {self._rollups[name] for name in named if name in self._rollups}
        if names and request.is_past:
            raise QueryRefused(
                f"rollup {', '.join(sorted(names))} cannot be read with as_of or snapshot",
                hint="Query `events` with GROUP BY instead: it gives the same numbers",
            )
        return await self._tables(names) if names else {}

    async def _statement(self, running: RunningQuery, sql: str) -> Statement:
        """Parse `sql`. Results are cached by text, because parsing is a third of the cost of a small query."""
        known = self._statements.get(sql) if isinstance(sql, str) else None
        if known is None:
            known = await self._worker.run(self._parse, running, sql)
            if len(self._statements) >= _CACHED_STATEMENTS:
                self._statements.pop(next(iter(self._statements)))
            if len(sql) <= _CACHED_CHARACTERS:
                self._statements[sql] = known
        return known

    def _parse(self, running: RunningQuery, sql: str) -> Statement:
        with self._translated(), running.cursor(self._engine) as cursor:
            return Statement.parse(sql, cursor)

    def _execute(
        self, running: RunningQuery, request: QueryRequest, statement: Statement, sources: Sources
    ) -> tuple[pa.Table, Relation | None]:
        with self._translated(), running.cursor(self._engine) as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")  # now() is constant in it
            relation, rows = None, 0
            if sources.cut is not None:
                bounds = _bounds(request, statement, sources.views, cursor)
                relation = scanned = sources.cut.relation(bounds, documents=request.documents)
                if statement.is_count:
                    rows, scanned = counted(relation)
                sources.register_events(cursor, scanned)
            sources.register(cursor)
            running.check()
            answer = self._fetch(cursor, statement, request)
            return with_count(answer, rows) if rows else answer, relation

    def _fetch(self, cursor: duckdb.DuckDBPyConnection, statement: Statement, request: QueryRequest) -> pa.Table:
        max_rows = self._settings.query_max_rows
        limit = max_rows + 1 if request.limit is None else min(request.limit, max_rows + 1)
        # In a subquery no CTE can change data, even where the check of the tree missed it.
        wrapped = f"SELECT * FROM (\n{statement.text}\n) LIMIT {limit}"
        table = cursor.sql(wrapped, params=request.params).to_arrow_table()
        if table.num_rows > max_rows:
            raise QueryTooLarge(
                f"the result has more than {max_rows} rows (query_max_rows)",
                hint="Aggregate, or pass limit= to get the first rows",
                limit=max_rows,
            )
        return table

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Replace each error of DuckDB by an error of Lakebed."""
        import duckdb  # see sql_engine.py

        try:
            yield
        except duckdb.InterruptException as error:
            raise QueryTimeout("the query was stopped: its object was closed", hint="Open the object again") from error
        except duckdb.OutOfMemoryException as error:
            limit = self._settings.query_memory_bytes
            raise QueryTooLarge(
                f"the query needs more than {limit} bytes (query_memory_bytes)",
                hint="Narrow its WHERE, or group by fewer columns",
                limit=limit,
            ) from error
        except duckdb.CatalogException as error:
            if "Table with name" not in str(error):
                raise QueryError(str(error)) from error
            message = str(error).partition("\n")[0].rstrip("!")
            raise QueryRefused(message, hint=f"There are {', '.join(self.known_tables)}") from error
        except duckdb.Error as error:
            raise QueryError(str(error)) from error

    async def close(self) -> None:
        """Stop the running queries and end the threads. Idempotent."""
        self._closed = True
        for task, running in list(self._running.items()):
            self._stop(task, running)
        if self._running:
            await asyncio.wait(set(self._running))
        self._worker.close()


def _bounds(
    request: QueryRequest, statement: Statement, views: Collection[str], cursor: duckdb.DuckDBPyConnection
) -> Sequence[Bounds]:
    if request.bounds is not None:
        return request.bounds
    if views or "timestamp" not in statement.text.lower():
        return (UNBOUNDED,)
    ((now_us,),) = cursor.execute("SELECT epoch_us(now())").fetchall()
    uses = statement.tables["events"]
    return find_bounds(statement.text, request.params, uses=uses, now_us=now_us)


def _for_duckdb(params: Parameters | None) -> Parameters | None:
    """Convert `params` for DuckDB: to a list or a dict, with aware datetimes in UTC."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {name: _in_utc(value) for name, value in params.items()}
    if isinstance(params, (str, bytes)) or not isinstance(params, Sequence):
        raise QueryRefused(f"`params` is a {type(params).__name__}", hint="Give a list for ?, or a dict for $name")
    return [_in_utc(value) for value in params]


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value
