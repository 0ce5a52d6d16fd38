"""SQL of strangers: planned here, run in a process of its own that sees what this question reads and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pyarrow as pa

from lakebed.clock import Clock
from lakebed.concurrency import Worker, finish_despite_cancel
from lakebed.errors import ObjectClosed, QueryBusy, QueryCrashed, QueryRefused, QueryTimeout, QueryTooLarge
from lakebed.moments import Moment
from lakebed.query.bounds import UNBOUNDED
from lakebed.query.count_star import counted, with_count
from lakebed.query.queries import Queries
from lakebed.query.relation import Relation
from lakebed.query.request import Parameters, Sources
from lakebed.query.request import QueryRequest as Asked
from lakebed.query.result import Result
from lakebed.settings import Settings

if TYPE_CHECKING:
    from lakebed.query.sandbox.messages import Plan
    from lakebed.query.sandbox.worker_process import WorkerProcess

__all__ = ["UntrustedQueries"]

_MAX_SQL = 1 << 16  # characters: what people write is far below, and reading it takes time
_MAX_PARAMS = 1 << 20  # bytes
_STARTS = 3  # of a child that ends before it is asked, as when the system is short of memory
_STARTS_WITHIN_S = 30.0
_IDLE_S = 60.0  # then the process that forks is let go
_T = TypeVar("_T")
_log = logging.getLogger("lakebed.sandbox")


class UntrustedQueries:
    """Answers SQL that came over a network, for one object.

    Args:
        queries: knows the object's tables, and plans.
    """

    def __init__(self, queries: Queries, settings: Settings, clock: Clock, *, name: str) -> None:
        self._queries = queries
        self._settings = settings
        self._clock = clock
        self._name = name
        self._running: dict[asyncio.Task[Result], _Run] = {}
        self._worker = self._new_worker()
        self._idle_worker: Worker | None = None  # the one before, which ends when its queue is empty
        self._leaving: asyncio.TimerHandle | None = None
        self._joining = threading.Lock()  # protects the next
        self._joined = False  # to the process that forks
        self._closed = False

    async def run(
        self,
        sql: str,
        params: Parameters | None = None,
        *,
        as_of: Moment | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is a process that must be killed, not the await
    ) -> Result:
        """The answer of `query` to untrusted SQL: an allowlist, and a process of its own that can be killed.

        It sees the tables of `query` and no file, network, setting or variable besides. Its limits are the settings
        `untrusted_*`; `limit` and `timeout` can only lower them.

        Args:
            sql: one SELECT over the tables of `query`, with the functions in query/sandbox/allowlist.py.
            params: numbers, texts, bytes, dates, times, decimals, and lists of them.
            as_of: as for `query`.
            limit: rows at most.
            timeout: seconds; at most `untrusted_timeout_s`.

        Raises:
            QueryRefused: it is not one SELECT of what is allowed; says where and what.
            QueryError: with DuckDB's message.
            QueryTimeout, QueryTooLarge: it passed a limit. No partial answer is given.
            QueryBusy: as many run as may; ask again.
            QueryCrashed: its process ended without an answer.
            InvalidAsOf: as for `query`.
        """
        return await self.run_patiently(sql, params, as_of=as_of, limit=limit, timeout=timeout, patience=0.0)

    async def run_patiently(
        self,
        sql: str,
        params: Parameters | None = None,
        *,
        as_of: Moment | None = None,
        limit: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
        patience: float,
    ) -> Result:
        """As `run`, but waits up to `patience` seconds while as many run as may."""
        if self._closed:
            raise ObjectClosed(f"{self._name} is closed", hint="Open the object first")
        asked = self._queries.question(sql, params, as_of, None, limit)
        if not isinstance(sql, str) or len(sql) > _MAX_SQL:
            raise QueryRefused(f"the SQL is no text of at most {_MAX_SQL} characters", hint="Shorten it")
        names, encoded = _encoded(asked.params)
        seconds = self._seconds(timeout)
        await self._turn(patience)
        if self._closed:
            raise ObjectClosed(f"{self._name} was closed before the answer", hint="Open the object and ask again")
        return await self._supervise(asked, names, encoded, seconds)

    async def _turn(self, patience: float) -> None:
        """Wait until one more may run. Raises QueryBusy."""
        most = self._settings.untrusted_queries
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while patience and len(self._running) >= most:
                    await asyncio.wait(set(self._running), return_when=asyncio.FIRST_COMPLETED)
        if len(self._running) >= most:
            raise QueryBusy(
                f"{len(self._running)} queries of this object run already (untrusted_queries)",
                hint="Ask again in a second",
                limit=most,
                scope="object",
            )

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self._settings.untrusted_timeout_s
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise QueryRefused(f"timeout is {timeout!r}", hint="Give a number of seconds above 0")
        return min(timeout, self._settings.untrusted_timeout_s)

    async def _supervise(self, asked: Asked, names: list[str] | None, params: bytes, seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        visit = _Run()
        met: asyncio.Future[None] = loop.create_future()  # the time of the question does not start before its child
        task = loop.create_task(self._answer(visit, met, asked, names, params, seconds))
        self._running[task] = visit
        task.add_done_callback(self._finished)
        try:
            either: set[asyncio.Future[Any]] = {task, met}
            await asyncio.wait(either, timeout=_STARTS_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if met.done():
                await asyncio.wait({task}, timeout=seconds)
        finally:
            late = not task.done()
            if late:
                self._stop(task)
        if late:
            await asyncio.wait({task})
            self._raise_late(seconds if met.done() else None)
        if self._closed:
            raise ObjectClosed(f"{self._name} was closed before the answer", hint="Open the object and ask again")
        return task.result()

    def _raise_late(self, seconds: float | None) -> NoReturn:
        if seconds is None:
            raise QueryCrashed("no process for the query starts", hint="The machine may be overloaded: ask again")
        raise QueryTimeout(
            f"the query ran longer than {seconds:g} s and was killed",
            hint=f"Narrow its WHERE to fewer days; untrusted_timeout_s is {self._settings.untrusted_timeout_s:g}",
            limit=seconds,
        )

    def _stop(self, task: asyncio.Task[Result]) -> None:
        self._running[task].stop()
        task.cancel()

    def _finished(self, task: asyncio.Task[Result]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # of a question that nobody waits for any more, no one else asks
        if self._leaving is not None:
            self._leaving.cancel()
        if not self._running and not self._closed:
            self._leaving = asyncio.get_running_loop().call_later(_IDLE_S, self._leave)

    async def _answer(
        self,
        visit: _Run,
        met: asyncio.Future[None],
        asked: Asked,
        names: list[str] | None,
        params: bytes,
        seconds: float,
    ) -> Result:
        from lakebed.query.sandbox.messages import SandboxRequest  # only objects that are asked need it

        started = self._clock.monotonic()
        question = SandboxRequest(
            sql=asked.sql,
            names=names,
            tables=[table.lower() for table in self._queries.known_tables],
            seconds=seconds,
            memory_bytes=self._settings.untrusted_memory_bytes,
            threads=self._settings.query_threads or 1,
        )
        try:
            await self._in_thread(partial(self._start, visit))
            met.set_result(None)
            plan = await self._in_thread(lambda: visit.cell.plan(question, params))
            if not {"seccomp", "landlock"} & set(plan.layers):
                _log.warning("%s: this kernel keeps neither files nor network from untrusted SQL", self._name)
            async with self._queries.sources(plan.tables, asked, mentions_person=plan.mentions_person) as sources:
                table, relation = await self._in_thread(partial(self._execute, visit.cell, plan, asked, sources))
            return sources.result(table, relation, (self._clock.monotonic() - started) * 1000)
        finally:
            visit.stop()
            await self._in_thread(visit.close)

    def _start(self, visit: _Run) -> None:
        from lakebed.query.sandbox.forkserver import shared

        with self._joining:
            if not self._joined:
                shared().join()
                self._joined = True
        for _ in range(_STARTS):
            visit.enter(shared().take())
            if visit.cell.meet():
                return
            visit.close()
        raise QueryCrashed("no process for the query starts", hint="Ask again; the system may be out of memory")

    def _execute(
        self, cell: WorkerProcess, plan: Plan, asked: Asked, sources: Sources
    ) -> tuple[pa.Table, Relation | None]:
        most = self._settings.untrusted_max_rows
        inputs, relation, rows = _Inputs(), None, 0
        if sources.cut is not None:
            # A view reads events that the question's own conditions say nothing of.
            relation = scanned = sources.cut.relation((UNBOUNDED,) if sources.views else plan.bounds)
            if plan.is_count:
                rows, scanned = counted(relation)
            sources.register_events(inputs, scanned, inputs.named)
        sources.register(inputs)
        limit = most + 1 if asked.limit is None else min(asked.limit, most + 1)
        table = cell.answer(
            inputs.files, inputs.tables, inputs.statements, rows=limit, max_bytes=self._settings.untrusted_max_bytes
        )
        if table.num_rows > most:
            raise QueryTooLarge(
                f"the result has more than {most} rows (untrusted_max_rows)",
                hint="Aggregate, or pass limit to get the first rows",
                limit=most,
            )
        return with_count(table, rows) if rows else table, relation

    def _new_worker(self) -> Worker:
        # A thread for each query that may run: it blocks until the child process has answered.
        return Worker(f"untrusted-{self._name}", threads=self._settings.untrusted_queries)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # The process of a cancelled query is killed, so its thread returns; after that nothing is left to clean up.
        return await finish_despite_cancel(self._worker.run(work))

    def _leave(self) -> None:
        """Without a query for a while, the threads and the process that forks end."""
        if self._worker.has_thread and not self._running:
            self._idle_worker, self._worker = self._worker, self._new_worker()
            self._idle_worker.run(self._let_go)
            self._idle_worker.close(wait=False)

    def _let_go(self) -> None:
        from lakebed.query.sandbox.forkserver import shared

        with self._joining:
            # Between `_leave` and now a question may have come, which needs the process.
            if self._joined and (self._closed or not self._running):
                self._joined = False
                shared().leave()

    async def close(self) -> None:
        """Kill what runs and let processes and threads go. Idempotent."""
        self._closed = True
        if self._leaving is not None:
            self._leaving.cancel()
        for task in list(self._running):
            self._stop(task)
        if self._running:
            await asyncio.wait(set(self._running))
        if self._worker.has_thread:
            await self._in_thread(self._let_go)
        self._worker.close()
        if self._idle_worker is not None:
            self._idle_worker.close()


class _Run:
    """One question under way: its child, also when that comes after it was stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both below
        self._cell: WorkerProcess | None = None
        self._stopped = False

    @property
    def cell(self) -> WorkerProcess:
        assert self._cell is not None  # noqa: S101 - it was entered before
        return self._cell

    def enter(self, cell: WorkerProcess) -> None:
        with self._lock:
            self._cell = cell
            if self._stopped:
                cell.kill()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._cell is not None:
                self._cell.kill()

    def close(self) -> None:
        with self._lock:
            cell, self._cell = self._cell, None
        if cell is not None:
            cell.close()


class _Inputs:
    """Notes down what a cursor would be told, for the child that has one."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.tables: dict[str, pa.Table] = {}
        self.statements: list[tuple[str, list[Any] | None]] = []

    def register(self, name: str, table: pa.Table, /) -> None:
        self.tables[name] = table

    def execute(self, sql: str, params: list[Any] | None = None, /) -> None:
        self.statements.append((sql, params))

    def named(self, path: str) -> str:
        self.files.append(path)
        return f"given://{len(self.files) - 1}"


def _encoded(params: Parameters | None) -> tuple[list[str] | None, bytes]:
    """Names of parameters, where they have some, and their values as an Arrow stream of one row."""
    if params is None:
        return None, b""
    names = [str(name) for name in params] if isinstance(params, Mapping) else None
    values: Sequence[Any] = list(params.values()) if isinstance(params, Mapping) else params
    columns = []
    for number, value in enumerate(values):
        try:
            columns.append(pa.array([value]))
        except (pa.ArrowException, OverflowError, ValueError, TypeError, RecursionError) as error:
            name = names[number] if names else number + 1
            raise QueryRefused(
                f"parameter {name} cannot be passed on: {str(error)[:200]}",
                hint="Give a number of 64 bits, text, bytes, a date or time, or a list of one of these",
            ) from error
    row = pa.record_batch(columns, [str(number) for number in range(len(columns))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_batch(row)
    encoded: bytes = sink.getvalue().to_pybytes()
    if len(encoded) > _MAX_PARAMS:
        raise QueryRefused(f"the parameters have more than {_MAX_PARAMS} bytes", hint="Pass fewer")
    return names, encoded
