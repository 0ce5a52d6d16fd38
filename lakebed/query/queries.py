"""Questions in SQL: one trusted, read-only SELECT at a time on each of two threads, with limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from lakebed.clock import Clock
from lakebed.errors import ObjectClosed, QueryError, QueryRefused, QueryTimeout, QueryTooLarge
from lakebed.histogram import SECONDS, Histogram
from lakebed.query.as_of import parse_as_of
from lakebed.query.bounds import UNBOUNDED, Bounds, find_bounds
from lakebed.query.count_star import counted, with_count
from lakebed.query.event_history import EventHistory
from lakebed.query.relation import Relation
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
_INTERRUPT_EVERY_S = 0.02  # DuckDB forgets an interrupt that comes between two of its statements
_GRACE_S = 1.0  # a single call of a scalar function does not stop before it is over
_REMEMBERED = 256  # statements; their text and their tables' names are kept
_REMEMBERED_CHARACTERS = 4096
_T = TypeVar("_T")


class Queries:
    """Answers SQL over all events and rollups of one object.

    Args:
        tables: gives rollup tables by name, caught up with every event acknowledged before the call.
        rollups: the names of the user's rollups.
        people: gives who is who by the events before a seq, as a table of identity and person_id; without it every
            identity is a person.
        name: the object's, for its threads.
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
        self._executor: ThreadPoolExecutor | None = None
        self._running: dict[asyncio.Task[Result], RunningQuery] = {}
        self._statements: dict[str, Statement] = {}  # by their text
        self._closed = False
        self.seconds = Histogram(SECONDS)  # of each question that was answered or stopped

    @property
    def known_tables(self) -> tuple[str, ...]:
        """The tables that SQL may name."""
        return ("events", "people", *self._rollups.values())

    async def run(
        self,
        sql: str,
        params: Parameters | None = None,
        *,
        as_of: datetime | date | str | None = None,
        snapshot: int | str | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is DuckDB that must be stopped, not the await
    ) -> Result:
        """One read-only SELECT over `events`, `people`, `hourly_events`, `daily_metrics` and this object's rollups.

        It sees every event acknowledged before the call. The SQL is trusted: it writes nothing, but may read other
        files by DuckDB's own functions; `query_untrusted` is for SQL of others. `now()` in it is the machine's.
        Cancelling the await stops it.

        Args:
            sql: order is kept where it has an ORDER BY.
            params: a sequence for `?`, or a mapping for `$name`; aware datetimes are TIMESTAMPTZ.
            as_of: aware datetime or ISO 8601 text (UTC unless it says otherwise): the answer as it was at that instant.
            snapshot: an Iceberg snapshot id or tag: only what that snapshot holds.
            limit: rows to return at most.
            timeout: seconds; default `query_timeout_s`.

        Raises:
            QueryRefused: when it is not one read-only SELECT, names an unknown table, or a rollup of another moment.
            QueryError: with DuckDB's message.
            QueryTimeout, QueryTooLarge: when it passed a limit. No partial answer is given.
            InvalidAsOf: when `as_of` cannot be read or lies in the future.
            SnapshotExpired: when the snapshot is gone.
        """
        return await self._supervise(self.question(sql, params, as_of, snapshot, limit), timeout)

    def question(
        self,
        sql: str,
        params: Parameters | None,
        as_of: datetime | date | str | None,
        snapshot: int | str | None,
        limit: int | None,
    ) -> QueryRequest:
        """What was asked, checked as far as it can be without reading the SQL. Raises as `run` does."""
        as_of_us = parse_as_of(as_of, self._clock.now_us())
        if as_of_us is not None and snapshot is not None:
            raise QueryRefused("as_of and snapshot were both given", hint="A snapshot is a moment already: give one")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise QueryRefused(f"limit is {limit!r}", hint="Give a number of rows, 0 or more")
        return QueryRequest(sql, _settled(params), as_of_us, snapshot, limit)

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
        """The answer to our own SQL, as `run` gives it: for metrics.

        Args:
            sql: as for `run`.
            params: as for `run`.
            as_of_us: microseconds; not in the future.
            tables: given instead of asked for; they may be parts of rollups.
            bounds: timestamps that matter, known better than they can be found in the SQL.
            started: by the monotonic clock, for `elapsed_ms`, where the question began before this call.
            documents: whether the table `events` has documents, beside events.
        """
        question = QueryRequest(
            sql, params, as_of_us, tables=tables, bounds=bounds, started=started, documents=documents
        )
        return await self._supervise(question, None)

    async def check_expression(self, sql: str) -> Statement:
        """Make sure that `sql` is one expression that only reads; the tables that it names.

        Raises:
            QueryRefused, QueryError: when it is not.
        """
        return await self._in_thread(partial(self._parse, RunningQuery(), f"SELECT\n{sql}"))

    async def _supervise(self, question: QueryRequest, timeout: float | None) -> Result:  # noqa: ASYNC109 - see run
        if self._closed:
            raise ObjectClosed(f"{self._name} is closed", hint="Open the object first")
        seconds = self._settings.query_timeout_s if timeout is None else timeout
        job = RunningQuery()
        began = self._clock.monotonic()
        task = asyncio.get_running_loop().create_task(self._answer(job, question))
        self._running[task] = job
        task.add_done_callback(self._finished)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            self.seconds.observe(self._clock.monotonic() - began)
            late = not task.done()
            self._stop(task, job)
        if late:
            await asyncio.wait({task}, timeout=_GRACE_S)
            raise QueryTimeout(
                f"the query ran longer than {seconds:g} s",
                hint="Pass timeout=, or narrow its WHERE to fewer days",
                limit=seconds,
            )
        return task.result()

    def _stop(self, task: asyncio.Task[Result], job: RunningQuery) -> None:
        if not task.done():
            job.stop()
            asyncio.get_running_loop().call_later(_INTERRUPT_EVERY_S, self._stop, task, job)

    def _finished(self, task: asyncio.Task[Result]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # of a question that nobody waits for any more, no one else asks

    async def _answer(self, job: RunningQuery, question: QueryRequest) -> Result:
        started = self._clock.monotonic() if question.started is None else question.started
        statement = await self._statement(job, question.sql)
        async with self.sources(statement.tables, question, mentions_person=statement.mentions_person) as sources:
            work = partial(self._execute, job, question, statement, sources)
            table, relation = await self._in_thread(work)
        return sources.result(table, relation, (self._clock.monotonic() - started) * 1000)

    @asynccontextmanager
    async def sources(
        self, named: Collection[str], question: QueryRequest, *, mentions_person: bool
    ) -> AsyncIterator[Sources]:
        """What a question reads that names the tables `named`, held still."""
        views = {name for name in set(named) & set(VIEWS) if name == "people" or question.is_past}
        end_seq = self._history.next_seq
        rollups = await self._rollup_tables(set(named) - views, question)
        async with AsyncExitStack() as stack:
            cut, people = None, None
            if views or "events" in named:
                cut = self._history.cut(as_of_us=question.as_of_us, snapshot=question.snapshot)
                await stack.enter_async_context(cut)
                if self._people is not None and (mentions_person or views & {"people", "daily_metrics"}):
                    people = await self._people(cut.end_seq)
            yield Sources(cut, rollups, people, frozenset(views), end_seq, question.as_of_us)

    async def _rollup_tables(self, named: set[str], question: QueryRequest) -> Mapping[str, pa.Table]:
        if question.tables is not None:
            return question.tables
        names = {self._rollups[name] for name in named if name in self._rollups}
        if names and question.is_past:
            raise QueryRefused(
                f"{', '.join(sorted(names))}: a rollup is only known as it is now",
                hint="Ask `events` for another moment; it gives the same numbers with a GROUP BY",
            )
        return await self._tables(names) if names else {}

    async def _statement(self, job: RunningQuery, sql: str) -> Statement:
        """The same text reads the same, so what was asked lately is not parsed again: it is a third of a small one."""
        known = self._statements.get(sql) if isinstance(sql, str) else None
        if known is None:
            known = await self._in_thread(partial(self._parse, job, sql))
            if len(self._statements) >= _REMEMBERED:
                self._statements.pop(next(iter(self._statements)))
            if len(sql) <= _REMEMBERED_CHARACTERS:
                self._statements[sql] = known
        return known

    def _parse(self, job: RunningQuery, sql: str) -> Statement:
        with self._translated(), job.cursor(self._engine) as cursor:
            return Statement.parse(sql, cursor)

    def _execute(
        self, job: RunningQuery, question: QueryRequest, statement: Statement, sources: Sources
    ) -> tuple[pa.Table, Relation | None]:
        with self._translated(), job.cursor(self._engine) as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")  # now() stands still in it
            relation, rows = None, 0
            if sources.cut is not None:
                bounds = _bounds(question, statement, sources.views, cursor)
                relation = scanned = sources.cut.relation(bounds, documents=question.documents)
                if statement.is_count:
                    rows, scanned = counted(relation)
                sources.register_events(cursor, scanned)
            sources.register(cursor)
            job.check()
            answer = self._fetch(cursor, statement, question)
            return with_count(answer, rows) if rows else answer, relation

    def _fetch(self, cursor: duckdb.DuckDBPyConnection, statement: Statement, question: QueryRequest) -> pa.Table:
        most = self._settings.query_max_rows
        limit = most + 1 if question.limit is None else min(question.limit, most + 1)
        # As a subquery no CTE can change data, whatever the check of the tree has missed.
        wrapped = f"SELECT * FROM (\n{statement.text}\n) LIMIT {limit}"
        table = cursor.sql(wrapped, params=question.params).to_arrow_table()
        if table.num_rows > most:
            raise QueryTooLarge(
                f"the result has more than {most} rows (query_max_rows)",
                hint="Aggregate, or pass limit= to get the first rows",
                limit=most,
            )
        return table

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Every error of DuckDB as one of ours."""
        import duckdb  # see engine.py

        try:
            yield
        except duckdb.InterruptException as error:
            raise QueryTimeout("the query was stopped", hint="Ask again") from error
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

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(2, thread_name_prefix=f"lakebed-query-{self._name}")
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def close(self) -> None:
        """Stop the questions under way and let the threads go. Idempotent."""
        self._closed = True
        for task, job in list(self._running.items()):
            self._stop(task, job)
        if self._running:
            await asyncio.wait(set(self._running))
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _bounds(
    question: QueryRequest, statement: Statement, views: Collection[str], cursor: duckdb.DuckDBPyConnection
) -> Sequence[Bounds]:
    if question.bounds is not None:
        return question.bounds
    if views or "timestamp" not in statement.text.lower():
        return (UNBOUNDED,)
    ((now_us,),) = cursor.execute("SELECT epoch_us(now())").fetchall()
    uses = statement.tables["events"]
    return find_bounds(statement.text, question.params, uses=uses, now_us=now_us)


def _settled(params: Parameters | None) -> Parameters | None:
    """`params` as DuckDB takes them: a list or a dict, aware datetimes in UTC."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {name: _in_utc(value) for name, value in params.items()}
    if isinstance(params, (str, bytes)) or not isinstance(params, Sequence):
        raise QueryRefused(f"params is a {type(params).__name__}", hint="Give a list for ?, or a dict for $name")
    return [_in_utc(value) for value in params]


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value
