"""Runs untrusted SQL. Each query has its own process, which can read only the data of the query."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pyarrow as pa

from lakebed.clock import Clock, Moment
from lakebed.concurrency import Worker, finish_despite_cancel
from lakebed.errors import ObjectClosed, QueryBusy, QueryCrashed, QueryRefused, QueryTimeout, QueryTooLarge
from lakebed.query.bounds import UNBOUNDED
from lakebed.query.queries import Queries
from lakebed.query.relation import Relation, counted, with_count
from lakebed.query.request import Parameters, QueryRequest, Sources
from lakebed.query.result import Result
from lakebed.settings import Settings

if TYPE_CHECKING:
    from lakebed.query.sandbox.messages import Plan
    from lakebed.query.sandbox.worker_process import WorkerProcess

__all__ = ["UntrustedQueries"]

_MAX_SQL = 1 << 16  # characters: far above what people write; parsing costs time
_MAX_PARAMS = 1 << 20  # bytes
_STARTS = 3  # attempts where a process ends before it gets its query, as it does when memory is short
_STARTS_WITHIN_S = 30.0
_IDLE_S = 60.0  # after that the fork server may end
_T = TypeVar("_T")
_log = logging.getLogger("lakebed.sandbox")


class UntrustedQueries:
    """Runs untrusted SQL for one object, each query in a process of its own.

    Args:
        queries: the object's tables and sources.
        settings: the limits whose names begin with `untrusted_`.
        clock: measures elapsed time.
        name: name of the object, for threads and messages.
    """

    def __init__(self, queries: Queries, settings: Settings, clock: Clock, *, name: str) -> None:
        self._queries = queries
        self._settings = settings
        self._clock = clock
        self._name = name
        self._running: dict[asyncio.Task[Result], _Run] = {}
        self._worker = self._new_worker()
        self._idle_worker: Worker | None = None  # the previous worker, which ends when its queue is empty
        self._idle_timer: asyncio.TimerHandle | None = None
        self._joining = threading.Lock()  # protects `_joined`
        self._joined = False  # whether the fork server counts this object
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
        """Run untrusted SQL: as `query`, but checked against an allowlist and run in a process of its own.

        The SQL reads the tables of `query`, and no file, network, setting or variable. The settings `untrusted_*` are
        its limits; `limit` and `timeout` can only lower them. A query that exceeds its time is killed.

        Args:
            sql: one SELECT over the tables of `query`, with the functions in query/sandbox/allowlist.py.
            params: numbers, texts, bytes, dates, times, decimals, and lists of them.
            as_of: as for `query`.
            limit: limit of rows.
            timeout: seconds; at most `untrusted_timeout_s`.

        Raises:
            QueryRefused: the SQL is not one SELECT, or uses something that is not allowed. The message says where.
            QueryError: DuckDB's message.
            QueryTimeout, QueryTooLarge: the query exceeded a limit. There is no partial answer.
            QueryBusy: `untrusted_queries` queries are running already. Try again.
            QueryCrashed: the process ended without an answer.
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
        timeout: float | None = None,  # noqa: ASYNC109 - as in `run`
        patience: float,
    ) -> Result:
        """As `run`, but wait up to `patience` seconds until another query may run, before raising QueryBusy."""
        if self._closed:
            raise ObjectClosed(f"{self._name} is closed", hint="Open the object first")
        request = self._queries.request(sql, params, as_of, None, limit)
        if not isinstance(sql, str) or len(sql) > _MAX_SQL:
            raise QueryRefused(f"the SQL must be text of at most {_MAX_SQL} characters", hint="Shorten it")
        names, encoded = _encoded(request.params)
        seconds = self._seconds(timeout)
        await self._wait_for_place(patience)
        if self._closed:
            raise ObjectClosed(f"{self._name} was closed before the answer", hint="Open the object and ask again")
        return await self._supervise(request, names, encoded, seconds)

    async def _wait_for_place(self, patience: float) -> None:
        """Wait until one more query may run. Raises QueryBusy after `patience` seconds."""
        limit = self._settings.untrusted_queries
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while patience and len(self._running) >= limit:
                    await asyncio.wait(set(self._running), return_when=asyncio.FIRST_COMPLETED)
        if len(self._running) >= limit:
            raise QueryBusy(
                f"{len(self._running)} queries of this object are running already (untrusted_queries)",
                hint="Ask again in a second",
                limit=limit,
                scope="object",
            )

    def _seconds(self, timeout: float | None) -> float:
        if timeout is None:
            return self._settings.untrusted_timeout_s
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise QueryRefused(f"`timeout` is {timeout!r}", hint="Give a number of seconds above 0")
        return min(timeout, self._settings.untrusted_timeout_s)

    async def _supervise(self, request: QueryRequest, names: list[str] | None, params: bytes, seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        run = _Run()
        started: asyncio.Future[None] = loop.create_future()  # the timeout begins when the process has started
        task = loop.create_task(self._answer(run, started, request, names, params, seconds))
        self._running[task] = run
        task.add_done_callback(self._finished)
        try:
            either: set[asyncio.Future[Any]] = {task, started}
            await asyncio.wait(either, timeout=_STARTS_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                await asyncio.wait({task}, timeout=seconds)
        finally:
            late = not task.done()
            if late:
                self._stop(task)
        if late:
            await asyncio.wait({task})
            self._raise_late(seconds if started.done() else None)
        if self._closed:
            raise ObjectClosed(f"{self._name} was closed before the answer", hint="Open the object and ask again")
        return task.result()

    def _raise_late(self, seconds: float | None) -> NoReturn:
        if seconds is None:
            raise QueryCrashed("the query's process did not start in time", hint="Try again: the system may be busy")
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
            task.exception()  # read it, so that asyncio does not log it when no caller waits any more
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if not self._running and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_S, self._end_idle)

    async def _answer(
        self,
        run: _Run,
        started: asyncio.Future[None],
        request: QueryRequest,
        names: list[str] | None,
        params: bytes,
        seconds: float,
    ) -> Result:
        from lakebed.query.sandbox.messages import SandboxRequest  # only objects with untrusted queries pay for it

        began = self._clock.monotonic()
        message = SandboxRequest(
            sql=request.sql,
            names=names,
            tables=[table.lower() for table in self._queries.known_tables],
            seconds=seconds,
            memory_bytes=self._settings.untrusted_memory_bytes,
            threads=self._settings.query_threads or 1,
        )
        try:
            await self._in_thread(partial(self._start, run))
            started.set_result(None)
            plan = await self._in_thread(lambda: run.process.plan(message, params))
            if not {"seccomp", "landlock"} & set(plan.layers):
                _log.warning("%s: this kernel can keep untrusted SQL from neither files nor network", self._name)
            async with self._queries.sources(plan.tables, request, mentions_person=plan.mentions_person) as sources:
                table, relation = await self._in_thread(partial(self._execute, run.process, plan, request, sources))
            return sources.result(table, relation, (self._clock.monotonic() - began) * 1000)
        finally:
            run.stop()
            await self._in_thread(run.close)

    def _start(self, run: _Run) -> None:
        from lakebed.query.sandbox.forkserver import shared

        with self._joining:
            if not self._joined:
                shared().join()
                self._joined = True
        for _ in range(_STARTS):
            run.enter(shared().acquire())
            if run.process.wait_started():
                return
            run.close()
        raise QueryCrashed("the query's process could not be started", hint="Try again: memory may be short")

    def _execute(
        self, process: WorkerProcess, plan: Plan, request: QueryRequest, sources: Sources
    ) -> tuple[pa.Table, Relation | None]:
        max_rows = self._settings.untrusted_max_rows
        inputs, relation, rows = _Inputs(), None, 0
        if sources.cut is not None:
            # A view reads events that the query's own conditions do not bound.
            relation = scanned = sources.cut.relation((UNBOUNDED,) if sources.views else plan.bounds)
            if plan.is_count:
                rows, scanned = counted(relation)
            sources.register_events(inputs, scanned, inputs.path_of)
        sources.register(inputs)
        limit = max_rows + 1 if request.limit is None else min(request.limit, max_rows + 1)
        table = process.answer(
            inputs.files, inputs.tables, inputs.statements, rows=limit, max_bytes=self._settings.untrusted_max_bytes
        )
        if table.num_rows > max_rows:
            raise QueryTooLarge(
                f"the result has more than {max_rows} rows (untrusted_max_rows)",
                hint="Aggregate, or pass limit to get the first rows",
                limit=max_rows,
            )
        return with_count(table, rows) if rows else table, relation

    def _new_worker(self) -> Worker:
        # A thread for each query that may run: it blocks until the child process has answered.
        return Worker(f"untrusted-{self._name}", threads=self._settings.untrusted_queries)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # The process of a cancelled query is killed, so its thread returns; after that nothing is left to clean up.
        return await finish_despite_cancel(self._worker.run(work))

    def _end_idle(self) -> None:
        """End the threads and leave the fork server. A timer calls this after a time without queries."""
        if self._worker.has_thread and not self._running:
            self._idle_worker, self._worker = self._worker, self._new_worker()
            self._idle_worker.run(self._leave_fork_server)
            self._idle_worker.close(wait=False)

    def _leave_fork_server(self) -> None:
        from lakebed.query.sandbox.forkserver import shared

        with self._joining:
            # Since `_end_idle` a query may have come that needs the fork server.
            if self._joined and (self._closed or not self._running):
                self._joined = False
                shared().leave()

    async def close(self) -> None:
        """Kill running queries, and end their processes and threads. Idempotent."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for task in list(self._running):
            self._stop(task)
        if self._running:
            await asyncio.wait(set(self._running))
        if self._worker.has_thread:
            await self._in_thread(self._leave_fork_server)
        self._worker.close()
        if self._idle_worker is not None:
            self._idle_worker.close()


class _Run:
    """A running query and its process. A process that starts after the query was stopped is killed too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both below
        self._process: WorkerProcess | None = None
        self._stopped = False

    @property
    def process(self) -> WorkerProcess:
        assert self._process is not None  # noqa: S101 - `enter` set it
        return self._process

    def enter(self, process: WorkerProcess) -> None:
        with self._lock:
            self._process = process
            if self._stopped:
                process.kill()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()


class _Inputs:
    """Takes the place of a cursor: records its calls, which the worker process repeats on a real cursor."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.tables: dict[str, pa.Table] = {}
        self.statements: list[tuple[str, list[Any] | None]] = []

    def register(self, name: str, table: pa.Table, /) -> None:
        self.tables[name] = table

    def execute(self, sql: str, params: list[Any] | None = None, /) -> None:
        self.statements.append((sql, params))

    def path_of(self, path: str) -> str:
        from lakebed.query.sandbox.messages import PASSED_PREFIX

        self.files.append(path)
        return f"{PASSED_PREFIX}{len(self.files) - 1}"


def _encoded(params: Parameters | None) -> tuple[list[str] | None, bytes]:
    """Encode parameters: their names (None if they have none), and their values as an Arrow stream of one row."""
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
                f"parameter {name} cannot be passed to the query: {str(error)[:200]}",
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
