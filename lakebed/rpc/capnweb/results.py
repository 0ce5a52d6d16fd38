"""Results of calls, there now or later, and the import table: the results and references that the peer holds.

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
        """The value. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class _Callbacks(threading.local):
    """Runs callbacks one after another, also those that follow from them: a chain of thousands is no deep stack."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[Outcome], None], Outcome]] = deque()
        self._running = False

    def run(self, callbacks: Iterable[Callable[[Outcome], None]], outcome: Outcome) -> None:
        """Run `callbacks`, and those that follow from them. Inside of another `run` they are left to that one."""
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
        """A result that is `value`."""
        return cls(Outcome(value))

    @classmethod
    def failed(cls, error: BaseException) -> PendingResult:
        """A result that is a failure with `error`."""
        return cls(Outcome(error=error))

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome and run the callbacks. Does nothing if it is resolved."""
        if self.outcome is None:
            self.outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
            _callbacks.run(callbacks, outcome)
            self._report_unhandled()

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Run `callback` with the outcome: now if there is one, else when it is resolved."""
        if self.outcome is not None:
            callback(self.outcome)
        else:
            self._callbacks.append(callback)

    def map(self, change: Callable[[Any], Any]) -> PendingResult:
        """The result of `change` of its value; a failure stays the same failure."""
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
        """The outcome, when it is there. Cancelling this leaves the call alone."""
        if self.outcome is None:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.then(lambda outcome: None if future.done() else future.set_result(outcome))
            return await future
        return self.outcome

    def __await__(self) -> Generator[Any, None, Any]:
        return self.value().__await__()

    async def value(self) -> Any:
        """The value, when it is there. Raises what the call raised, which is then handled."""
        outcome = await self.wait()
        self.handled = True
        return outcome.unwrap()

    def abandon(self, report: Callable[[BaseException], None]) -> None:
        """Declare that no caller will await it: its failure goes to `report`, unless that was handled."""
        self._report = report
        self._report_unhandled()

    def _report_unhandled(self) -> None:
        error = self.outcome.error if self.outcome is not None else None
        if error is not None and self._report is not None and not self.handled:
            self.handled = True
            self._report(error)


class Reference(msgspec.Struct, frozen=True):
    """In the arguments of a call: a value at a path of another result."""

    result: PendingResult
    path: tuple[str | int, ...] = ()


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """A copy of `value`: dicts, lists and tuples are copied, other values but plain ones are passed to `replace`."""
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
    """The list of the values of all `results`, or their first failure, when all are resolved: now, if they are."""
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
    """One entry: how often the peer introduced it, and how many references to it are held here."""

    result: PendingResult
    introduced: int = 1
    held: int = 1


class Imports:
    """The import table of one session.

    Args:
        write: sends a message.
        encoder: makes an encoder for one message.
        check: raises ProtocolError when the tables are full.
        codec: makes the errors.
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
        """A reference to the peer's export `number`. Raises ProtocolError if the peer cannot export under that id."""
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
        """Take the peer's result of `number`."""
        entry = self._entries.get(number)
        if entry is None:
            return  # released meanwhile
        if entry.result.outcome is not None:
            raise ProtocolError(f"{number} was resolved before, or is not pending")
        result.then(entry.result.resolve)
        self._forget(number)

    def reject(self, number: int, result: PendingResult) -> None:
        """Take the peer's error of `number`."""
        outcome = result.outcome
        error = outcome.value if outcome is not None else None
        if not isinstance(error, BaseException):
            error = ProtocolError(f"the peer rejected a call with {error!r:.80}")
        self.resolve(number, PendingResult.failed(error))

    # To the peer.

    def push(self, number: int, path: tuple[Step, ...], arguments: list[Any] | None) -> int:
        """Call the value at `path` of the peer's `number`, or read it if `arguments` is None. Gives the result's id.

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
        """Ask for the result of a pushed call. It is resolved when the peer answers, or the session ends."""
        result = self._entries[number].result
        self._write(["pull", number])
        return result

    def call(self, number: int, arguments: tuple[Any, ...]) -> PendingResult:
        """Call the peer's export `number`."""
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
        """Count one more reference."""
        if (entry := self._entries.get(number)) is not None:
            entry.held += 1

    def release(self, number: int) -> None:
        """Count one less; after the last the peer is told."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.held -= 1
            if not entry.held:
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._write(["release", number, self._entries.pop(number).introduced])

    def fail(self, error: BaseException) -> None:
        """Fail all pending results: the peer sends no more answers."""
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

    One that came as an argument is released when the call is over: to keep it, keep a `dup()`, and close that.
    """

    __slots__ = ("_closed", "link", "number")

    def __init__(self, link: Imports, number: int) -> None:
        self.link = link
        self.number = number
        self._closed = False

    def __call__(self, *arguments: Any) -> Awaitable[Any]:
        """Call it. Awaiting raises the peer's error, or that the session is over."""
        return self.link.call(self.number, arguments)

    @property
    def answers(self) -> bool:
        """Whether it can be called at all: the client of an HTTP batch cannot."""
        return self.link.answers

    def dup(self) -> Remote:
        """A second reference, to be closed by itself."""
        self.link.retain(self.number)
        return Remote(self.link, self.number)

    def close(self) -> None:
        """Release the reference: the peer may forget it. Idempotent."""
        if not self._closed:
            self._closed = True
            self.link.release(self.number)

    def __repr__(self) -> str:
        return f"<Remote {self.number}>"
