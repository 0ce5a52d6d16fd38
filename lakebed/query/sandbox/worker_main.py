"""The other side of the wall: the process that forks a child for each question, and the child.

`serve` imports everything, gives up what it does not need (confine.py) and then only forks. It has no thread of
Python's and never sees a question. A child answers one question and ends.
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
from lakebed.query.sandbox import framing
from lakebed.query.sandbox.allowlist import check
from lakebed.query.sandbox.confine import Confined, bound_files, bound_memory, bound_time, confine, die_with_parent
from lakebed.query.sandbox.messages import Failure, Inputs, Plan, SandboxRequest
from lakebed.query.sandbox.passed_files import PREFIX, PassedFiles
from lakebed.query.statement import Statement

__all__ = ["serve"]

_LOOKS_EVERY_S = 5.0
_BATCH = 8192  # rows of the answer at a time
_MESSAGE = 4000  # characters of an error
_OWN_FILES = 32
_ANYTHING = 1 << 32
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_CATALOG = "SELECT view_name FROM duckdb_views() UNION SELECT table_name FROM duckdb_tables()"


def serve(control: int, server: int) -> NoReturn:
    """Fork a child for each socket that comes over `control`, until it is closed or process `server` is gone."""
    listening = socket.socket(fileno=control)
    # Once confined nothing can be imported, and sqlglot imports late: for the element of a list it infers types.
    importlib.import_module("sqlglot.optimizer")
    find_bounds("SELECT [seq][1] FROM events WHERE timestamp > now()", None, uses=1)
    confined = confine()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries children
    while os.getppid() == server:
        ready, _, _ = select.select([listening], [], [], _LOOKS_EVERY_S)
        if not ready:
            continue
        _, descriptors, _, _ = socket.recv_fds(listening, 1, 1)
        if not descriptors:
            break
        if os.fork() == 0:
            listening.close()
            _live(socket.socket(fileno=descriptors[0]), confined, os.getppid())
        os.close(descriptors[0])
    os._exit(0)


def _live(connection: socket.socket, confined: Confined, parent: int) -> NoReturn:
    try:
        os.dup2(0, 2)  # both are /dev/null then
        if die_with_parent(parent):
            myself = os.pidfd_open(os.getpid())
            socket.send_fds(connection, [b"H"], [myself])
            os.close(myself)
            _answer(connection, confined)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the server is told and the process ends
        with contextlib.suppress(OSError):
            framing.send(connection, framing.ERROR, msgspec.json.encode(_failure(error)))
    finally:
        os._exit(0)


def _answer(connection: socket.socket, confined: Confined) -> None:
    files = PassedFiles()
    cursor = _connect(files)
    # Before the question is there: what is first asked of a connection takes longest.
    catalog = {str(name).lower() for (name,) in cursor.execute(_CATALOG).fetchall()}
    Statement.parse("SELECT 1", cursor)
    cursor.sql("SELECT 1").to_arrow_reader(1).read_all()
    question = msgspec.json.decode(_expect(connection, framing.QUESTION), type=SandboxRequest)
    params = _params(_expect(connection, framing.DATA), question.names)
    bound_time(question.seconds, question.threads)
    bound_memory(confined, question.memory_bytes)
    cursor.execute(f"SET memory_limit = '{question.memory_bytes * 3 // 4}B'")
    cursor.execute(f"SET threads = {question.threads}")
    cursor.execute("SET lock_configuration = true")
    cursor.execute("BEGIN TRANSACTION READ ONLY")  # now() stands still in it: the bounds are those of the answer
    statement = Statement.parse(
        question.sql, cursor, lambda text, tree: check(text, tree, tables=question.tables, catalog=catalog)
    )
    plan = Plan(
        statement.tables,
        statement.is_count,
        statement.mentions_person,
        _bounds(statement, params, cursor),
        confined.layers,
    )
    framing.send(connection, framing.PLAN, msgspec.json.encode(plan))
    inputs = msgspec.json.decode(_expect(connection, framing.INPUTS), type=Inputs)
    bound_files(len(inputs.tables) + inputs.files + _OWN_FILES)
    descriptors = _receive_descriptors(connection, inputs.files + len(inputs.tables))
    files.files = descriptors[: inputs.files]
    for name, descriptor in zip(inputs.tables, descriptors[inputs.files :], strict=True):
        cursor.register(name, _table(descriptor))
    for sql, values in inputs.statements:
        cursor.execute(sql, values)
    _send_answer(connection, cursor, f"SELECT * FROM (\n{statement.text}\n) LIMIT {inputs.rows}", params)
    framing.send(connection, framing.END)


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
    cursor.execute(f"SET allowed_directories = ['{PREFIX}']")
    cursor.execute("SET enable_external_access = false")
    cursor.execute("SET disabled_filesystems = 'LocalFileSystem'")
    return cursor


def _expect(connection: socket.socket, tag: bytes) -> bytes:
    found, payload = framing.receive(connection, _ANYTHING)
    if found != tag:
        raise ValueError(f"the server sent {found!r}, not {tag!r}")
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
    found: list[int] = []
    while len(found) < count:
        said, some, _, _ = socket.recv_fds(connection, 1, 32)
        if not said:
            raise EOFError("the server is gone")
        found += some
    return found


def _table(descriptor: int) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))).read_all()


class _Sink:
    """A file for Arrow whose bytes go out as frames."""

    closed = False

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: Any) -> int:
        whole = memoryview(data).cast("B")
        for at in range(0, len(whole), framing.MAX_BYTES):
            framing.send(self._connection, framing.DATA, whole[at : at + framing.MAX_BYTES])
        return len(whole)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _send_answer(connection: socket.socket, cursor: duckdb.DuckDBPyConnection, sql: str, params: Any) -> None:
    try:
        reader = cursor.sql(sql, params=params).to_arrow_reader(_BATCH)
        with pa.PythonFile(_Sink(connection), "w") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:  # it counts a line before the first one
        raise QueryError(_LINE.sub(lambda found: f"LINE {int(found[1]) - 1}:", str(error))) from error


def _failure(error: BaseException) -> Failure:
    if isinstance(error, QueryRefused):
        return Failure("refused", error.message[:_MESSAGE], error.facts)
    if isinstance(error, (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError, QueryTooLarge)):
        return Failure("too_large", "")
    if isinstance(error, (duckdb.Error, QueryError)):
        return Failure("error", str(error)[:_MESSAGE])
    return Failure("crashed", f"{type(error).__name__}: {error}"[:_MESSAGE])
