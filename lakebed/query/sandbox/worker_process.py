"""The server's side of one child: what is said to it, what is believed of it, and how it ends."""

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
from lakebed.query.sandbox import framing
from lakebed.query.sandbox.messages import Failure, Inputs, Plan, SandboxRequest

__all__ = ["WorkerProcess"]

_AT_ONCE = 32  # descriptors in one message
_DIES_WITHIN_MS = 5000
_MESSAGE = 4000  # characters of an error


class WorkerProcess:
    """A child that answers one question. Its methods block, except for `kill`, which any thread may call.

    Args:
        connection: to the child, which may not have started yet.
        on_close: told when the child is gone.
    """

    def __init__(self, connection: socket.socket, on_close: Callable[[WorkerProcess], None]) -> None:
        self._connection = connection
        self._on_close = on_close
        self._speaking = threading.Lock()  # who reads and writes the socket
        self._state = threading.Lock()  # protects both below
        self._process: int | None = None  # a pidfd: a pid could be another process by the time of the kill
        self._killed = False
        self._memory_bytes = 0

    def meet(self) -> bool:
        """Wait for it to start; False when it ended before it was asked anything, which is no fault of a question."""
        with self._speaking:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                return False
            if not said or not descriptors:
                return False
            with self._state:
                self._process = descriptors[0]
                if self._killed:
                    self._signal()
            return not self.is_gone

    def plan(self, question: SandboxRequest, params: bytes) -> Plan:
        """What the child makes of `question`.

        Raises:
            QueryRefused, QueryError: it is not allowed, or is no SQL.
            QueryTooLarge, QueryCrashed: reading it was too much.
        """
        self._memory_bytes = question.memory_bytes
        with self._speaking, self._translated():
            with _answered_already():
                framing.send(self._connection, framing.QUESTION, msgspec.json.encode(question))
                framing.send(self._connection, framing.DATA, params)
            _, payload = self._expect(framing.PLAN)
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
        """The answer, of at most `rows` rows and `max_bytes` as an Arrow stream.

        Raises:
            QueryError: with DuckDB's message.
            QueryTooLarge, QueryCrashed: it was too much.
        """
        inputs = Inputs(len(files), list(tables), list(statements), rows)
        with self._speaking, self._translated():
            with _answered_already():
                framing.send(self._connection, framing.INPUTS, msgspec.json.encode(inputs))
                self._give(files, tables)
            return _table(self._collect(max_bytes))

    def _give(self, files: Sequence[str], tables: Mapping[str, pa.Table]) -> None:
        sources: list[Callable[[], int]] = [_opener(path) for path in files]
        sources += [_writer(name, table) for name, table in tables.items()]
        for first in range(0, len(sources), _AT_ONCE):
            descriptors: list[int] = []
            try:
                descriptors += [source() for source in sources[first : first + _AT_ONCE]]
                socket.send_fds(self._connection, [framing.DESCRIPTORS], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _collect(self, max_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            tag, payload = self._expect(framing.DATA, framing.END)
            if tag == framing.END:
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
        tag, payload = framing.receive(self._connection, framing.MAX_BYTES)
        if tag == framing.ERROR:
            raise self._error(msgspec.json.decode(payload, type=Failure))
        if tag not in tags:
            raise ValueError(f"a frame {tag!r} where {tags!r} was due")
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
            name: at for name, at in failure.facts.items() if name in ("line", "column") and isinstance(at, int)
        }
        return kind(failure.message[:_MESSAGE], **place)

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """What a child that died, or says what is no sense, is to the caller."""
        try:
            yield
        except (EOFError, ConnectionError, ValueError, msgspec.DecodeError, pa.ArrowException) as error:
            if isinstance(error, QueryError):
                raise
            raise QueryCrashed(
                "the process of the query ended without an answer",
                hint="Most often it needed more memory (untrusted_memory_bytes) or nested too deep",
                cause=f"{type(error).__name__}: {error}",
            ) from error

    def kill(self) -> None:
        """End the child, whatever it does. Whoever waits for it is told at once. Idempotent."""
        with self._state:
            if not self._killed:
                self._killed = True
                self._signal()
                with contextlib.suppress(OSError):  # the child is gone already
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _signal(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    @property
    def is_gone(self) -> bool:
        """Whether the child has ended already."""
        looked = select.poll()
        looked.register(self._connection, 0)  # hanging up is always told
        return bool(looked.poll(0))

    def abandon(self) -> None:
        """Let go of a child that was asked nothing: it ends by itself."""
        self._connection.close()

    def close(self) -> None:
        """`kill`, and wait until it is gone."""
        self.kill()
        with self._speaking:
            with self._state:
                process, self._process = self._process, None
            if process is not None:
                gone = select.poll()
                gone.register(process, select.POLLIN)
                gone.poll(_DIES_WITHIN_MS)
                os.close(process)
            self._connection.close()
        self._on_close(self)


def _answered_already() -> contextlib.suppress:
    """For what cannot be sent to a child that has ended: its last word, if it said one, is still to be read.

    It may have refused a question before all of it was written, as happens where this thread has to wait for its turn.
    """
    return contextlib.suppress(ConnectionError)


def _opener(path: str) -> Callable[[], int]:
    def open_() -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ArchiveUnavailable(
                f"stored events cannot be read: {error.strerror}",
                hint="Run check(); restore missing files from a backup; a warehouse elsewhere is only read by query()",
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
    for column in table.columns:  # offsets and lengths are the child's word until then
        # A 128-bit integer may have more digits than the decimal that it is handed out as.
        column.validate(full=not pa.types.is_decimal(column.type))
    return table
