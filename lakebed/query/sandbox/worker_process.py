"""The server's side of one worker process: it sends a query, reads the answer and ends the process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.errors import ArchiveUnavailable, QueryCrashed, QueryError, QueryRefused, QueryTooLarge
from lakebed.query.sandbox import messages
from lakebed.query.sandbox.messages import Failure, Inputs, Plan, SandboxRequest

__all__ = ["WorkerProcess"]

_DESCRIPTORS = 32  # limit of one message
_DIES_WITHIN_MS = 5000
_MESSAGE = 4000  # characters of an error


class WorkerProcess:
    """A process that answers one untrusted query. Its methods block, except for `kill`, which any thread may call.

    Args:
        connection: socket to the process, which may not have started yet.
        on_close: called by `close`, when the process has ended.
    """

    def __init__(self, connection: socket.socket, on_close: Callable[[WorkerProcess], None]) -> None:
        self._connection = connection
        self._on_close = on_close
        self._socket_lock = threading.Lock()  # held to read and write the socket
        self._state = threading.Lock()  # protects both below
        self._process: int | None = None  # a pidfd: by the time of the kill, a pid may belong to another process
        self._killed = False
        self._memory_bytes = 0

    def wait_started(self) -> bool:
        """Wait until the process has started. Returns False if it has ended already, which no query can have caused."""
        with self._socket_lock:
            try:
                greeting, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                return False
            if not greeting or not descriptors:
                return False
            with self._state:
                self._process = descriptors[0]
                if self._killed:
                    self._signal()
            return not self.has_ended

    def plan(self, request: SandboxRequest, params: bytes) -> Plan:
        """Send a query, and return the inputs that the query needs.

        Raises:
            QueryRefused, QueryError: the SQL is not allowed, or not SQL.
            QueryTooLarge, QueryCrashed: parsing exceeded a limit.
        """
        self._memory_bytes = request.memory_bytes
        with self._socket_lock, self._translated():
            with _even_if_ended():
                messages.send(self._connection, messages.REQUEST, msgspec.json.encode(request))
                messages.send(self._connection, messages.DATA, params)
            _, payload = self._expect(messages.PLAN)
            return msgspec.json.decode(payload, type=Plan)

    def answer(
        self,
        files: Sequence[str],
        tables: Mapping[str, pa.Table],
        statements: Sequence[tuple[str, list[Any] | None]],
        *,
        rows: int,
        max_bytes: int,
    ) -> pa.Table:
        """Read the answer: at most `rows` rows, and at most `max_bytes` bytes as an Arrow stream.

        Raises:
            QueryError: DuckDB's message.
            QueryTooLarge, QueryCrashed: the query exceeded a limit.
        """
        inputs = Inputs(len(files), list(tables), list(statements), rows)
        with self._socket_lock, self._translated():
            with _even_if_ended():
                messages.send(self._connection, messages.INPUTS, msgspec.json.encode(inputs))
                self._pass(files, tables)
            return _table(self._collect(max_bytes))

    def _pass(self, files: Sequence[str], tables: Mapping[str, pa.Table]) -> None:
        sources: list[Callable[[], int]] = [_opener(path) for path in files]
        sources += [_writer(name, table) for name, table in tables.items()]
        for first in range(0, len(sources), _DESCRIPTORS):
            descriptors: list[int] = []
            try:
                descriptors += [source() for source in sources[first : first + _DESCRIPTORS]]
                socket.send_fds(self._connection, [messages.DESCRIPTORS], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _collect(self, max_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            tag, payload = self._expect(messages.DATA, messages.END)
            if tag == messages.END:
                return b"".join(pieces)
            pieces.append(payload)
            size += len(payload)
            if size > max_bytes:
                raise QueryTooLarge(
                    f"the result has more than {max_bytes} bytes (untrusted_max_bytes)",
                    hint="Ask for fewer columns or rows, or aggregate",
                    limit=max_bytes,
                )

    def _expect(self, *tags: bytes) -> tuple[bytes, bytes]:
        tag, payload = messages.receive(self._connection, messages.MAX_BYTES)
        if tag == messages.ERROR:
            raise self._error(msgspec.json.decode(payload, type=Failure))
        if tag not in tags:
            raise ValueError(f"the process sent a frame {tag!r}, expected was {tags!r}")
        return tag, payload

    def _error(self, failure: Failure) -> QueryError:
        if failure.kind == "too_large":
            return QueryTooLarge(
                f"the query needs more than {self._memory_bytes} bytes (untrusted_memory_bytes)",
                hint="Narrow its WHERE, or group by fewer columns",
                limit=self._memory_bytes,
            )
        kind = {"refused": QueryRefused, "error": QueryError}.get(failure.kind, QueryCrashed)
        place: dict[str, Any] = {
            name: value
            for name, value in failure.facts.items()
            if name in ("line", "column") and isinstance(value, int)
        }
        return kind(failure.message[:_MESSAGE], **place)

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """Raise QueryCrashed if the process has ended or its answer cannot be read."""
        try:
            yield
        except (EOFError, ConnectionError, ValueError, msgspec.DecodeError, pa.ArrowException) as error:
            if isinstance(error, QueryError):
                raise
            raise QueryCrashed(
                "the process of the query ended without an answer",
                hint="The usual causes are memory (untrusted_memory_bytes) and SQL that is nested too deep",
                cause=f"{type(error).__name__}: {error}",
            ) from error

    def kill(self) -> None:
        """Kill the process. A thread that waits for an answer of the process returns at once. Idempotent."""
        with self._state:
            if not self._killed:
                self._killed = True
                self._signal()
                with contextlib.suppress(OSError):  # the process has already ended
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _signal(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        poll = select.poll()
        poll.register(self._connection, 0)  # a hang-up is always reported
        return bool(poll.poll(0))

    def release(self) -> None:
        """Close the socket to a process that has no query. The process then ends by itself."""
        self._connection.close()

    def close(self) -> None:
        """Kill the process, wait until it has ended, and close the socket."""
        self.kill()
        with self._socket_lock:
            with self._state:
                process, self._process = self._process, None
            if process is not None:
                poll = select.poll()
                poll.register(process, select.POLLIN)
                poll.poll(_DIES_WITHIN_MS)
                os.close(process)
            self._connection.close()
        self._on_close(self)


def _even_if_ended() -> contextlib.suppress:
    """Ignore the error of writing to a process that has ended: the last message of the process can still be read.

    The process may have refused the query before the whole query was written.
    """
    return contextlib.suppress(ConnectionError)


def _opener(path: str) -> Callable[[], int]:
    def open_() -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ArchiveUnavailable(
                f"stored events cannot be read: {error.strerror}",
                hint="Run check(); restore missing files from a backup; only query() can read a remote warehouse",
                path=path,
            ) from error

    return open_


def _writer(name: str, table: pa.Table) -> Callable[[], int]:
    def write() -> int:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        return descriptor

    return write


def _table(stream: bytes) -> pa.Table:
    table = pa.ipc.open_stream(stream).read_all()
    for column in table.columns:  # until then, offsets and lengths are not trusted
        # A 128-bit integer may have more digits than the decimal type that carries it.
        column.validate(full=not pa.types.is_decimal(column.type))
    return table
