"""Peer: one end of a Cap'n Web session. Messages go in by `receive` and out by `send`; a transport carries them.

Ids that the importing side chose are positive; ids that the exporting side chose are negative. 0 is the main object.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lakebed.rpc.capnweb.codec import Codec, Limits, Target
from lakebed.rpc.capnweb.errors import ProtocolError, TooLarge, Unsupported
from lakebed.rpc.capnweb.evaluation import Evaluator
from lakebed.rpc.capnweb.results import Imports, Outcome, PendingResult, Remote
from lakebed.rpc.capnweb.values import Encoder

__all__ = ["Peer"]

_log = logging.getLogger("lakebed.capnweb")
_REJECT_AT = 4  # times the limit of pending calls, at which a call is rejected


class _Export(msgspec.Struct):
    """An entry of the export table: the result of a call that the peer pushed, or a target sent to the peer."""

    result: PendingResult
    count: int = 1
    pulled: bool = False
    size: int = 0
    released_by_answer: bool = False  # as `stream` asks


class Peer:
    """One end of a Cap'n Web session.

    Args:
        send: takes one message. It returns False if no answer should be sent until `drained` is called.
        main: the target that the peer reaches under the id 0.
        codec: the program's own types of values and errors.
        limits: limits for messages and calls of the peer.
        faithful: whether the peer is a program like this one, with the same codec.
        answers: whether the peer can be called. In an HTTP batch it cannot.
        ended: called once, when the session has ended.
    """

    def __init__(
        self,
        send: Callable[[str], bool],
        main: Target | None = None,
        *,
        codec: Codec | None = None,
        limits: Limits | None = None,
        faithful: bool = False,
        answers: bool = True,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.closed: BaseException | None = None
        self.sent = 0  # characters
        self._send = send
        self._codec = codec or Codec()
        self._limits = limits or Limits()
        self._faithful = faithful
        self._answers = answers
        self._when_ended = ended
        self._evaluator = Evaluator(self._codec, self._begin, self._limits)
        self.imports = Imports(self._write, self._encoder, self._add_entry, self._codec, answers=answers)
        self._exports: dict[int, _Export] = {0: _Export(PendingResult.of(main or Target("this connection")))}
        self._exported: dict[Target, int] = {}
        self._held: Counter[Target] = Counter()
        self._size = 0  # size of all results that are held
        self._next_push = 1  # the peer's next positive id
        self._next_export = -1
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        self._unsent: deque[int] = deque()  # answers that wait until the peer has read the ones before
        self._changed = asyncio.Event()

    # Incoming messages.

    def receive(self, text: str) -> None:
        """Process one message. One that breaks the protocol or a limit aborts the session. Raises nothing."""
        if self.closed is not None:
            return
        try:
            self._take(self._parsed(text))
        except ProtocolError as error:
            self.abort(error)
        except Exception:  # noqa: BLE001 - it is logged, and ends this session alone
            _log.exception("a message could not be taken")
            self.abort(ProtocolError("the message could not be taken"))

    def _parsed(self, text: str) -> list[Any]:
        if len(text) > self._limits.message_bytes:
            raise ProtocolError(f"a message has more than {self._limits.message_bytes} characters")
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            raise ProtocolError(f"a message is not JSON: {error}") from None
        if not isinstance(message, list):
            raise ProtocolError("a message must be an array")
        return message

    def _take(self, message: list[Any]) -> None:
        match message:
            case ["push", expression]:
                self._pushed(expression)
            case ["pull", int() as number]:
                self._pull(number)
            case ["release", int() as number, int() as count]:
                self._release(number, count)
            case ["resolve", int() as number, expression]:
                self.imports.resolve(number, self._evaluator.evaluate(expression, self))
            case ["reject", int() as number, expression]:
                self.imports.reject(number, self._evaluator.evaluate(expression, self))
            case ["stream", expression]:
                number = self._pushed(expression)
                self._exports[number].released_by_answer = True
                self._pull(number)
            case ["pipe"]:
                self._add(PendingResult.failed(Unsupported("streams are not taken here: send text, bytes or lists")))
            case ["abort", expression]:
                outcome = self._evaluator.evaluate(expression, self).outcome
                error = outcome.value if outcome is not None else None
                if not isinstance(error, Exception):
                    error = ProtocolError(f"the peer aborted the session: {error}")
                self.close(error)
            case _:
                raise ProtocolError(f"an unknown message: {str(message)[:60]}")

    def _pushed(self, expression: Any) -> int:
        return self._add(self._evaluator.evaluate(expression, self))

    def _add(self, result: PendingResult) -> int:
        number = self._next_push
        self._next_push += 1
        self._add_entry()
        self._exports[number] = _Export(result)
        result.then(lambda outcome: self._resolved(number, outcome))
        return number

    def _add_entry(self) -> None:
        if len(self._exports) + len(self.imports) >= self._limits.entries:
            raise ProtocolError(
                f"more than {self._limits.entries} results and stubs are held: dispose of those that are no longer used"
            )

    def _resolved(self, number: int, outcome: Outcome) -> None:
        if (export := self._exports.get(number)) is not None:
            export.size = self._codec.size(outcome.value, self._limits.held_size)
            self._size += export.size
            if self._size > self._limits.held_size:
                self.abort(ProtocolError("the results that are held are too large: await or dispose of some"))
                return
        if isinstance(outcome.value, Target):
            self._held[outcome.value] += 1
            if number not in self._exports:  # released meanwhile
                self._drop(outcome.value)

    def _drop(self, target: Target) -> None:
        self._held[target] -= 1
        if not self._held[target]:
            del self._held[target]
            target.release()

    def _pull(self, number: int) -> None:
        export = self._exports.get(number)
        if export is None:
            raise ProtocolError(f"{number} cannot be pulled: it does not exist")
        if not export.pulled:
            export.pulled = export.result.handled = True
            export.result.then(lambda _outcome: self._answer(number))

    def _release(self, number: int, count: int) -> None:
        export = self._exports.get(number)
        if export is None or not 0 < count <= export.count:
            raise ProtocolError(f"{number} cannot be released {count} times")
        export.count -= count
        if not export.count:
            del self._exports[number]
            self._size -= export.size
            _log_unhandled(export)
            outcome = export.result.outcome
            if outcome is not None and isinstance(outcome.value, Target):
                if self._exported.get(outcome.value) == number:
                    del self._exported[outcome.value]
                self._drop(outcome.value)
            self._changed.set()

    # Answers.

    def _answer(self, number: int) -> None:
        export = self._exports.get(number)
        if export is None or self.closed is not None:
            return
        if self._full:
            self._unsent.append(number)
            return
        assert export.result.outcome is not None  # noqa: S101 - called when it is resolved
        self._post(self._resolution(number, export.result.outcome))
        if export.released_by_answer:
            self._release(number, 1)

    def _resolution(self, number: int, outcome: Outcome) -> str:
        error = outcome.error
        if not self._answers and self.sent > self._limits.batch_size:
            error = TooLarge("the answers of this batch are too large together: ask for less at once")
        if error is None:
            try:
                return _text(["resolve", number, self._encoder().write(outcome.value)])
            except Exception as failure:  # noqa: BLE001 - that a value cannot be written is an answer too
                error = failure
        return _text(["reject", number, self._encoder().fault(error)])

    def _encoder(self) -> Encoder:
        return Encoder(self._codec, self._export, self._own, faithful=self._faithful, limits=self._limits)

    def _export(self, target: Target) -> int:
        number = self._exported.get(target)
        if number is not None:
            self._exports[number].count += 1
            return number
        number = self._next_export
        self._next_export -= 1
        self._exports[number] = _Export(PendingResult.of(target))
        self._exported[target] = number
        self._held[target] += 1
        return number

    def _own(self, value: Any) -> list[Any] | None:
        return ["import", value.number] if isinstance(value, Remote) and value.link is self.imports else None

    def _write(self, message: list[Any]) -> None:
        if self.closed is None:
            self._post(_text(message))

    def _post(self, text: str) -> None:
        self.sent += len(text)
        if not self._send(text):
            self._full = True

    def drained(self) -> None:
        """Send the waiting answers. Called when the transport can take messages again."""
        self._full = False
        while self._unsent and not self._full:
            self._answer(self._unsent.popleft())
        self._changed.set()

    # Work for the evaluator.

    def _begin(self, call: Callable[[], Any], result: PendingResult) -> None:
        """Begin a call. Resolves `result` with its outcome; with an error if too many calls are under way."""
        if len(self._tasks) >= _REJECT_AT * self._limits.pending:
            message = f"{len(self._tasks)} calls are under way"
            hint = "Await some before you make more"
            result.resolve(Outcome(error=self._codec.overloaded(message, hint=hint)))
            return
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - it is the call's outcome
            result.resolve(Outcome(error=error))
            return
        if not inspect.isawaitable(value):
            result.resolve(self._bounded(value))
            return
        task = asyncio.get_running_loop().create_task(self._finish(value, result))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _finish(self, value: Awaitable[Any], result: PendingResult) -> None:
        try:
            outcome = self._bounded(await value)
        except asyncio.CancelledError:
            result.resolve(Outcome(error=self._codec.unreachable("the session ended")))
            raise
        except Exception as error:  # noqa: BLE001 - it is the call's outcome
            outcome = Outcome(error=error)
        result.resolve(outcome)

    def _bounded(self, value: Any) -> Outcome:
        limit = self._limits.result_size
        if self._codec.size(value, limit) <= limit:
            return Outcome(value)
        return Outcome(error=TooLarge(f"the answer has more than {limit} values and characters: ask for less"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    @property
    def pending(self) -> int:
        """The number of calls under way."""
        return len(self._tasks)

    @property
    def idle(self) -> bool:
        """Whether no call is under way, no answer waits, and no reference to the peer is held (by a watch, say)."""
        return not (self._tasks or len(self.imports) or self._unsent)

    async def ready(self) -> None:
        """Wait until `receive` may take another message: too many calls are pending, or answers wait, until then."""
        while self.closed is None and (self._full or len(self._tasks) >= self._limits.pending):
            if self.imports.unanswered and not self._full:
                return  # a call under way may wait for the next message
            self._changed.clear()
            await self._changed.wait()

    async def finish(self) -> None:
        """Wait until all calls have ended. Call this after the last message: pending calls to the peer fail."""
        error = self._codec.unreachable(
            "the peer sends no more answers", hint="Use a WebSocket for calls in both directions"
        )
        self.imports.fail(error)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # The importing side.

    def find(self, number: int) -> PendingResult:
        """As `Scope.find`."""
        export = self._exports.get(number)
        if export is None:
            raise ProtocolError(f"{number} does not exist: it was released, or never pushed")
        export.result.handled = True  # a failure becomes that of the calls built on it
        return export.result

    def stub(self, number: int) -> Remote:
        """As `Scope.stub`."""
        return self.imports.stub(number)

    def promise(self, number: int) -> PendingResult:
        """As `Scope.promise`."""
        return self.imports.promise(number)

    # The end.

    def abort(self, error: BaseException) -> None:
        """Send the reason to the peer, and end the session."""
        if self.closed is None:
            self._post(_text(["abort", self._encoder().fault(error)]))
            self.close(error)

    def close(self, error: BaseException) -> None:
        """End the session: cancel calls under way, make remotes unusable, and release targets. Idempotent."""
        if self.closed is not None:
            return
        self.closed = error
        for task in self._tasks:
            task.get_loop().call_soon(task.cancel)  # after its first step: a call that was made begins
        self.imports.close(self._codec.unreachable(f"the session ended: {error}", hint="Open a new one"))
        for export in self._exports.values():
            _log_unhandled(export)
        self._exports.clear()
        self._exported.clear()
        self._unsent.clear()
        held, self._held = self._held, Counter()
        for target in held:
            target.release()
        self._changed.set()
        if self._when_ended is not None:
            self._when_ended()

    async def settle(self) -> None:
        """Wait until no call is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _text(message: list[Any]) -> str:
    return msgspec.json.encode(message).decode()


def _log_unhandled(export: _Export) -> None:
    if export.result.outcome is not None:
        export.result.abandon(lambda error: _log.warning("a call that its client did not await failed: %r", error))
