"""Results of calls, resolved now or later; and the import table: results and references that the peer holds.

In-process stubs use results too. In the import table, ids of pushed calls are positive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any

import msgspec

from lakebed.rpc.capnweb.codec import Codec, Step
from lakebed.rpc.capnweb.errors import ProtocolError
from lakebed.rpc.capnweb.values import Encoder

__all__ = ["Imports", "Outcome", "PendingResult", "Reference", "Remote", "gather", "replaced"]

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one call: `error` if it failed, else `value`."""

    value: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        """Return the value, or raise the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class _Callbacks(threading.local):
    """Runs callbacks from a queue, also those that callbacks cause: chains of thousands need no deep stack."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[Outcome], None], Outcome]] = deque()
        self._running = False

    def run(self, callbacks: Iterable[Callable[[Outcome], None]], outcome: Outcome) -> None:
        """Run `callbacks`, and those that they cause. If a callback calls `run`, the outer `run` runs them."""
        self._queue.extend((callback, outcome) for callback in callbacks)
        if self._running:
            return
        self._running = True
        try:
            while self._queue:
                callback, outcome = self._queue.popleft()
                callback(outcome)
        finally:
            self._running = False


_callbacks = _Callbacks()


class PendingResult:
    """A result that is resolved once. Callbacks run in the order in which they were added, so pipelined calls do too.

    Attributes:
        outcome: the outcome; None until it is resolved.
        handled: whether a failure was passed on, to an `await` or to a call that was built on this one.
    """

    __slots__ = ("_callbacks", "_report", "handled", "outcome")

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome
        self.handled = False
        self._callbacks: list[Callable[[Outcome], None]] = []
        self._report: Callable[[BaseException], None] | None = None

    @classmethod
    def of(cls, value: Any) -> PendingResult:
        """Make a result that is resolved with `value`."""
        return cls(Outcome(value))

    @classmethod
    def failed(cls, error: BaseException) -> PendingResult:
        """Make a result that is resolved with `error`."""
        return cls(Outcome(error=error))

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome and run the callbacks. Does nothing if the result is resolved already."""
        if self.outcome is None:
            self.outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
            _callbacks.run(callbacks, outcome)
            self._report_unhandled()

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Run `callback` with the outcome: at once if the result is resolved, else as soon as it is."""
        if self.outcome is not None:
            callback(self.outcome)
        else:
            self._callbacks.append(callback)

    def map(self, change: Callable[[Any], Any]) -> PendingResult:
        """A result that has the value `change(value)`; an error stays the same error."""
        result = PendingResult()

        def resolve(outcome: Outcome) -> None:
            if outcome.error is None:
                try:
                    outcome = Outcome(change(outcome.value))
                except Exception as error:  # noqa: BLE001 - it is the outcome
                    outcome = Outcome(error=error)
            result.resolve(outcome)

        self.then(resolve)
        return result

    async def wait(self) -> Outcome:
        """Wait for the outcome and return it. Cancelling the wait does not cancel the call."""
        if self.outcome is None:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.then(lambda outcome: None if future.done() else future.set_result(outcome))
            return await future
        return self.outcome

    def __await__(self) -> Generator[Any, None, Any]:
        return self.value().__await__()

    async def value(self) -> Any:
        """Wait for the value and return it. Raises the error of the call, which then counts as handled."""
        outcome = await self.wait()
        self.handled = True
        return outcome.unwrap()

    def abandon(self, report: Callable[[BaseException], None]) -> None:
        """Declare that no caller will await the result. Its error goes to `report`, unless it was handled."""
        self._report = report
        self._report_unhandled()

    def _report_unhandled(self) -> None:
        error = self.outcome.error if self.outcome is not None else None
        if error is not None and self._report is not None and not self.handled:
            self.handled = True
            self._report(error)


class Reference(msgspec.Struct, frozen=True):
    """Stands in the arguments of a call for the value at a path in another call's result."""

    result: PendingResult
    path: tuple[str | int, ...] = ()


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Copy dicts, lists and tuples; keep plain values (texts, numbers, bytes, None); pass all others to `replace`."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: replaced(item, replace) for key, item in value.items()}
    if kind is list:
        return [replaced(item, replace) for item in value]
    if kind is tuple:
        return tuple([replaced(item, replace) for item in value])
    return replace(value)


def gather(results: Sequence[PendingResult]) -> PendingResult:
    """A result that is resolved when all `results` are: with a list of their values, or with the first error."""
    gathered = PendingResult()
    pending = [result for result in results if result.outcome is None]
    missing = len(pending)

    def resolve() -> None:
        outcomes = [result.outcome for result in results if result.outcome is not None]
        failure = next((outcome for outcome in outcomes if outcome.error is not None), None)
        gathered.resolve(failure or Outcome([outcome.value for outcome in outcomes]))

    def count(_outcome: Outcome) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            resolve()

    for result in pending:
        result.then(count)
    if not pending:
        resolve()
    return gathered


class _Import(msgspec.Struct):
    """An entry of the table: how often the peer introduced it, and the number of references held to it here."""

    result: PendingResult
    introduced: int = 1
    held: int = 1


class Imports:
    """The import table of one session: results and references that the peer holds for this side.

    Args:
        write: sends a message.
        encoder: makes an encoder for one message.
        check: raises ProtocolError if the tables are full.
        codec: makes errors of its own classes.
        answers: whether the peer can be called.
    """

    def __init__(
        self,
        write: Callable[[list[Any]], None],
        encoder: Callable[[], Encoder],
        check: Callable[[], None],
        codec: Codec,
        *,
        answers: bool,
    ) -> None:
        self._write = write
        self._encoder = encoder
        self._check = check
        self._codec = codec
        self.answers = answers
        self._entries: dict[int, _Import] = {}
        self._next = 1
        self._closed: BaseException | None = None
        self.unanswered = 0  # calls of the peer's functions that are pending

    def __len__(self) -> int:
        return len(self._entries)

    # From the peer.

    def stub(self, number: int) -> Remote:
        """Make a reference to the peer's export `number`. Raises ProtocolError if `number` cannot be an export's id."""
        entry = self._entries.get(number)
        if number >= 0 or (entry is not None and entry.result.outcome is None):
            raise ProtocolError(f"{number} cannot be an export")
        if entry is None:
            self._check()
            self._entries[number] = _Import(PendingResult.of(None))
        else:
            entry.introduced += 1
            entry.held += 1
        return Remote(self, number)

    def promise(self, number: int) -> PendingResult:
        """The result that the peer will send for its promise `number`."""
        if number >= 0 or number in self._entries:
            raise ProtocolError(f"{number} cannot be a new promise")
        self._check()
        entry = self._entries[number] = _Import(PendingResult())
        return entry.result

    def resolve(self, number: int, result: PendingResult) -> None:
        """Resolve the result with id `number` with the value that the peer sent."""
        entry = self._entries.get(number)
        if entry is None:
            return  # released meanwhile
        if entry.result.outcome is not None:
            raise ProtocolError(f"{number} was resolved before, or is not pending")
        result.then(entry.result.resolve)
        self._forget(number)

    def reject(self, number: int, result: PendingResult) -> None:
        """Resolve the result with id `number` with the error that the peer sent."""
        outcome = result.outcome
        error = outcome.value if outcome is not None else None
        if not isinstance(error, BaseException):
            error = ProtocolError(f"the peer rejected a call with {error!r:.80}")
        self.resolve(number, PendingResult.failed(error))

    # To the peer.

    def push(self, number: int, path: tuple[Step, ...], arguments: list[Any] | None) -> int:
        """Call the value at `path` from the peer's `number`; only read it if `arguments` is None. Returns an id.

        Raises:
            TooLarge, TypeError: an argument cannot be sent. Nothing was sent.
        """
        expression: list[Any] = ["pipeline", number, list(path)]
        if arguments is not None:
            encoder = self._encoder()
            expression.append([encoder.argument(argument) for argument in arguments])
        self._write(["push", expression])
        pushed = self._next
        self._next += 1
        self._entries[pushed] = _Import(PendingResult() if self._closed is None else PendingResult.failed(self._closed))
        return pushed

    def pull(self, number: int) -> PendingResult:
        """Request the result of a pushed call. It is resolved when the peer answers or the session ends."""
        result = self._entries[number].result
        self._write(["pull", number])
        return result

    def call(self, number: int, arguments: tuple[Any, ...]) -> PendingResult:
        """Call the peer's export `number`. Returns the call's pending result."""
        if self._closed is not None:
            return PendingResult.failed(self._closed)
        if not self.answers:
            error = self._codec.unreachable("an HTTP batch cannot call its client", hint="Use a WebSocket")
            return PendingResult.failed(error)
        result = self.pull(self.push(number, (), list(arguments)))
        self.unanswered += 1
        result.then(self._answered)
        return result

    def _answered(self, _outcome: Outcome) -> None:
        self.unanswered -= 1

    # References.

    def retain(self, number: int) -> None:
        """Count one more reference to the entry `number`."""
        if (entry := self._entries.get(number)) is not None:
            entry.held += 1

    def release(self, number: int) -> None:
        """Count one reference less to the entry `number`; after the last, send `release` to the peer."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.held -= 1
            if not entry.held:
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._write(["release", number, self._entries.pop(number).introduced])

    def fail(self, error: BaseException) -> None:
        """Fail all pending results with `error`. Called when the peer sends no more answers."""
        for entry in list(self._entries.values()):
            entry.result.resolve(Outcome(error=error))

    def close(self, error: BaseException) -> None:
        """Fail all pending results and every later call with `error`."""
        self._closed = error
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.result.resolve(Outcome(error=error))


class Remote:
    """A reference to a function or an object of the peer. Calling it returns an awaitable of the peer's answer.

    A Remote in the arguments of a call is released when the call has ended. To keep it, keep and close a `dup()`.
    """

    __slots__ = ("_closed", "link", "number")

    def __init__(self, link: Imports, number: int) -> None:
        self.link = link
        self.number = number
        self._closed = False

    def __call__(self, *arguments: Any) -> Awaitable[Any]:
        """Call the function. Awaiting raises the peer's error, or an error if the session has ended."""
        return self.link.call(self.number, arguments)

    @property
    def answers(self) -> bool:
        """Whether the peer can be called. The client of an HTTP batch cannot."""
        return self.link.answers

    def dup(self) -> Remote:
        """Make a second reference, which must be closed separately."""
        self.link.retain(self.number)
        return Remote(self.link, self.number)

    def close(self) -> None:
        """Release the reference: the peer may forget it. Idempotent."""
        if not self._closed:
            self._closed = True
            self.link.release(self.number)

    def __repr__(self) -> str:
        return f"<Remote {self.number}>"
