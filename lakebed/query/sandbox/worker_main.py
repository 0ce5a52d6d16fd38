"""The fork server's main function, and the worker process that it forks for each untrusted query.

`serve` imports everything, confines itself (confine.py) and then only forks. It has no Python thread and never sees a
query. A worker process answers one query and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import re
import select
import signal
import socket
from typing import Any, NoReturn

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.ipc

from lakebed.errors import QueryError, QueryRefused, QueryTooLarge
from lakebed.query.bounds import UNBOUNDED, Bounds, find_bounds
from lakebed.query.sandbox import messages
from lakebed.query.sandbox.allowlist import check
from lakebed.query.sandbox.confine import Confined, bound_files, bound_memory, bound_time, confine, die_with_parent
from lakebed.query.sandbox.messages import PASSED_PREFIX, Failure, Inputs, Plan, SandboxRequest
from lakebed.query.sandbox.passed_files import PassedFiles
from lakebed.query.statement import Statement

__all__ = ["serve"]

_POLL_S = 5.0
_BATCH_ROWS = 8192
_MESSAGE = 4000  # characters of an error
_OWN_FILES = 32
_NO_LIMIT = 1 << 32
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_CATALOG = "SELECT view_name FROM duckdb_views() UNION SELECT table_name FROM duckdb_tables()"


def serve(control: int, server: int) -> NoReturn:
    """Fork a worker for each socket received over `control`, until `control` closes or the process `server` ends."""
    listening = socket.socket(fileno=control)
    # A confined process cannot import. sqlglot imports its optimizer late, for the element of a list.
    importlib.import_module("sqlglot.optimizer")
    find_bounds("SELECT [seq][1] FROM events WHERE timestamp > now()", None, uses=1)
    confined = confine()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    while os.getppid() == server:
        ready, _, _ = select.select([listening], [], [], _POLL_S)
        if not ready:
            continue
        _, descriptors, _, _ = socket.recv_fds(listening, 1, 1)
        if not descriptors:
            break
        if os.fork() == 0:
            listening.close()
            _run_worker(socket.socket(fileno=descriptors[0]), confined, os.getppid())
        os.close(descriptors[0])
    os._exit(0)


def _run_worker(connection: socket.socket, confined: Confined, parent: int) -> NoReturn:
    try:
        os.dup2(0, 2)  # stderr too is /dev/null then
        if die_with_parent(parent):
            myself = os.pidfd_open(os.getpid())
            socket.send_fds(connection, [b"H"], [myself])
            os.close(myself)
            _answer(connection, confined)
    except BaseException as error:  # noqa: BLE001 - any error is sent to the server, and the process ends
        with contextlib.suppress(OSError):
            messages.send(connection, messages.ERROR, msgspec.json.encode(_failure(error)))
    finally:
        os._exit(0)


def _answer(connection: socket.socket, confined: Confined) -> None:
    files = PassedFiles()
    cursor = _connect(files)
    # Before the query arrives: the first statements of a connection take longest.
    catalog = {str(name).lower() for (name,) in cursor.execute(_CATALOG).fetchall()}
    Statement.parse("SELECT 1", cursor)
    cursor.sql("SELECT 1").to_arrow_reader(1).read_all()
    request = msgspec.json.decode(_expect(connection, messages.REQUEST), type=SandboxRequest)
    params = _params(_expect(connection, messages.DATA), request.names)
    bound_time(request.seconds, request.threads)
    bound_memory(confined, request.memory_bytes)
    cursor.execute(f"SET memory_limit = '{request.memory_bytes * 3 // 4}B'")
    cursor.execute(f"SET threads = {request.threads}")
    cursor.execute("SET lock_configuration = true")
    cursor.execute("BEGIN TRANSACTION READ ONLY")  # now() is constant in it, so the bounds hold for the answer
    statement = Statement.parse(
        request.sql, cursor, lambda text, tree: check(text, tree, tables=request.tables, catalog=catalog)
    )
    plan = Plan(
        statement.tables,
        statement.is_count,
        statement.mentions_person,
        _bounds(statement, params, cursor),
        confined.layers,
    )
    messages.send(connection, messages.PLAN, msgspec.json.encode(plan))
    inputs = msgspec.json.decode(_expect(connection, messages.INPUTS), type=Inputs)
    bound_files(len(inputs.tables) + inputs.files + _OWN_FILES)
    descriptors = _receive_descriptors(connection, inputs.files + len(inputs.tables))
    files.files = descriptors[: inputs.files]
    for name, descriptor in zip(inputs.tables, descriptors[inputs.files :], strict=True):
        cursor.register(name, _table(descriptor))
    for sql, values in inputs.statements:
        cursor.execute(sql, values)
    _send_answer(connection, cursor, f"SELECT * FROM (\n{statement.text}\n) LIMIT {inputs.rows}", params)
    messages.send(connection, messages.END)


def _connect(files: PassedFiles) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "preserve_insertion_order": True,
        "temp_directory": "",
    }
    cursor = duckdb.connect(":memory:", config=config)
    cursor.execute("SET GLOBAL TimeZone = 'UTC'")
    cursor.register_filesystem(files)
    cursor.execute(f"SET allowed_directories = ['{PASSED_PREFIX}']")
    cursor.execute("SET enable_external_access = false")
    cursor.execute("SET disabled_filesystems = 'LocalFileSystem'")
    return cursor


def _expect(connection: socket.socket, tag: bytes) -> bytes:
    received, payload = messages.receive(connection, _NO_LIMIT)
    if received != tag:
        raise ValueError(f"the server sent {received!r}, not {tag!r}")
    return payload


def _params(encoded: bytes, names: list[str] | None) -> list[Any] | dict[str, Any] | None:
    if not encoded:
        return None
    row = pa.ipc.open_stream(encoded).read_all()
    values = [column[0].as_py() for column in row.columns]
    return values if names is None else dict(zip(names, values, strict=True))


def _bounds(
    statement: Statement, params: list[Any] | dict[str, Any] | None, cursor: duckdb.DuckDBPyConnection
) -> tuple[Bounds, ...]:
    if "timestamp" not in statement.text.lower() or not statement.tables.get("events"):
        return (UNBOUNDED,)
    ((now_us,),) = cursor.execute("SELECT epoch_us(now())").fetchall()
    return find_bounds(statement.text, params, uses=statement.tables["events"], now_us=now_us)


def _receive_descriptors(connection: socket.socket, count: int) -> list[int]:
    descriptors: list[int] = []
    while len(descriptors) < count:
        tag, received, _, _ = socket.recv_fds(connection, 1, 32)
        if not tag:
            raise EOFError("the server has closed the socket")
        descriptors += received
    return descriptors


def _table(descriptor: int) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))).read_all()


class _Sink:
    """A file to which Arrow writes, and which sends the bytes as frames."""

    closed = False

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: Any) -> int:
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), messages.MAX_BYTES):
            messages.send(self._connection, messages.DATA, whole[start : start + messages.MAX_BYTES])
        return len(whole)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _send_answer(connection: socket.socket, cursor: duckdb.DuckDBPyConnection, sql: str, params: Any) -> None:
    try:
        reader = cursor.sql(sql, params=params).to_arrow_reader(_BATCH_ROWS)
        with pa.PythonFile(_Sink(connection), "w") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:  # DuckDB's line numbers count the wrapping SELECT
        raise QueryError(_LINE.sub(lambda match: f"LINE {int(match[1]) - 1}:", str(error))) from error


def _failure(error: BaseException) -> Failure:
    if isinstance(error, QueryRefused):
        return Failure("refused", error.message[:_MESSAGE], error.facts)
    if isinstance(error, (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError, QueryTooLarge)):
        return Failure("too_large", "")
    if isinstance(error, (duckdb.Error, QueryError)):
        return Failure("error", str(error)[:_MESSAGE])
    return Failure("crashed", f"{type(error).__name__}: {error}"[:_MESSAGE])
