"""Peer: one end of a Cap'n Web session. Messages go in by `receive` and out by `send`; others carry them.

Ids are positive where the importing side chose them (0 is the main object) and negative where the exporting side did.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from lakebed.errors import Backpressure, Unreachable
from lakebed.rpc.calls import Outcome
from lakebed.rpc.capnweb.errors import ProtocolError, Tell, TooLarge, Unsupported, tell
from lakebed.rpc.capnweb.evaluation import Evaluator
from lakebed.rpc.capnweb.exported_object import Target
from lakebed.rpc.capnweb.future import Slot
from lakebed.rpc.capnweb.imports import Imports
from lakebed.rpc.capnweb.limits import Limits
from lakebed.rpc.capnweb.remote_reference import Remote
from lakebed.rpc.capnweb.size import weigh
from lakebed.rpc.capnweb.values import Encoder, Reader

__all__ = ["Peer"]

_log = logging.getLogger("lakebed.capnweb")
_HARD = 4  # times the limit of pending calls at which one is rejected


class _Export(msgspec.Struct):
    """What we hold for the peer: what it pushed, or what we sent by reference."""

    slot: Slot
    count: int = 1
    pulled: bool = False
    weight: int = 0
    used: bool = False  # something was built on it, which has its failure
    fleeting: bool = False  # released by its answer, as `stream` asks


class Peer:
    """One end of a session.

    Args:
        send: takes one message. False says that no more should come before `drained` is called.
        main: what the other side finds under 0.
        limits: of what the other side may ask.
        faithful: whether the other side is a Lakebed.
        trusting: whether it is our server: results and structs that it sends are made again.
        structs: those structs, by name.
        tell: what errors say to the other side.
        answers: whether the other side can be called. In an HTTP batch it cannot.
        ended: called once, when the session is over.
    """

    def __init__(
        self,
        send: Callable[[str], bool],
        main: Target | None = None,
        *,
        limits: Limits | None = None,
        faithful: bool = False,
        trusting: bool = False,
        structs: Mapping[str, type[Any]] | None = None,
        tell: Tell = tell,
        answers: bool = True,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.closed: BaseException | None = None
        self.sent = 0  # characters
        self._send = send
        self._limits = limits or Limits()
        self._faithful = faithful
        self._tell = tell
        self._answers = answers
        self._when_ended = ended
        self._evaluator = Evaluator(Reader(self._limits, trusting=trusting, structs=structs), self, self._limits)
        self.imports = Imports(self._write, self._encoder, self._add_entry, answers=answers)
        self._exports: dict[int, _Export] = {0: _Export(Slot.of(main or Target("this connection")))}
        self._exported: dict[Target, int] = {}
        self._held: Counter[Target] = Counter()
        self._weight = 0  # of all results that are held
        self._next_push = 1  # the peer's next positive id
        self._next_export = -1
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        self._later: deque[int] = deque()  # answers that wait until the peer has read what there is
        self._eased = asyncio.Event()

    # Incoming messages.

    def receive(self, text: str) -> None:
        """Take one message. What breaks the protocol or a limit ends the session with an `abort`; nothing is raised."""
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
            raise ProtocolError("a message is no array")
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
                self.imports.settle(number, self._evaluator.evaluate(expression, self))
            case ["reject", int() as number, expression]:
                self.imports.reject(number, self._evaluator.evaluate(expression, self))
            case ["stream", expression]:
                number = self._pushed(expression)
                self._exports[number].fleeting = True
                self._pull(number)
            case ["pipe"]:
                self._enter(Slot.failed(Unsupported("streams are not taken here: send text, bytes or lists")))
            case ["abort", expression]:
                outcome = self._evaluator.evaluate(expression, self).outcome
                error = outcome.value if outcome is not None else None
                self.close(error if isinstance(error, Exception) else ProtocolError(f"the peer gave up: {error}"))
            case _:
                raise ProtocolError(f"an unknown message: {str(message)[:60]}")

    def _pushed(self, expression: Any) -> int:
        return self._enter(self._evaluator.evaluate(expression, self))

    def _enter(self, slot: Slot) -> int:
        number = self._next_push
        self._next_push += 1
        self._add_entry()
        self._exports[number] = _Export(slot)
        slot.then(lambda outcome: self._arrived(number, outcome))
        return number

    def _add_entry(self) -> None:
        if len(self._exports) + len(self.imports) >= self._limits.entries:
            raise ProtocolError(
                f"more than {self._limits.entries} calls and stubs are held: await or dispose of those that are over"
            )

    def _arrived(self, number: int, outcome: Outcome) -> None:
        if (export := self._exports.get(number)) is not None:
            export.weight = weigh(outcome.value, self._limits.held_size)
            self._weight += export.weight
            if self._weight > self._limits.held_size:
                self.abort(ProtocolError("the results that are held are too large: await or dispose of what is over"))
                return
        if isinstance(outcome.value, Target):
            self._held[outcome.value] += 1
            if number not in self._exports:  # nobody wants it any more
                self._drop(outcome.value)

    def _drop(self, target: Target) -> None:
        self._held[target] -= 1
        if not self._held[target]:
            del self._held[target]
            target.release()

    def _pull(self, number: int) -> None:
        export = self._exports.get(number)
        if export is None:
            raise ProtocolError(f"there is no {number} to pull")
        if not export.pulled:
            export.pulled = True
            export.slot.then(lambda _outcome: self._answer(number))

    def _release(self, number: int, count: int) -> None:
        export = self._exports.get(number)
        if export is None or not 0 < count <= export.count:
            raise ProtocolError(f"{number} cannot be released {count} times")
        export.count -= count
        if not export.count:
            del self._exports[number]
            self._weight -= export.weight
            _tell_unheard(export)
            outcome = export.slot.outcome
            if outcome is not None and isinstance(outcome.value, Target):
                if self._exported.get(outcome.value) == number:
                    del self._exported[outcome.value]
                self._drop(outcome.value)
            self._eased.set()

    # Answers.

    def _answer(self, number: int) -> None:
        export = self._exports.get(number)
        if export is None or self.closed is not None:
            return
        if self._full:
            self._later.append(number)
            return
        assert export.slot.outcome is not None  # noqa: S101 - called when it is there
        self._post(self._resolution(number, export.slot.outcome))
        if export.fleeting:
            self._release(number, 1)

    def _resolution(self, number: int, outcome: Outcome) -> str:
        error = outcome.error
        if not self._answers and self.sent > self._limits.batch_size:
            error = TooLarge("the answers of this batch are too large together: ask for less at once")
        if error is None:
            try:
                return _text(["resolve", number, self._encoder().write(outcome.value)])
            except Exception as failure:  # noqa: BLE001 - whatever cannot be written is an answer too
                error = failure
        return _text(["reject", number, self._encoder().fault(self._tell(error))])

    def _encoder(self) -> Encoder:
        return Encoder(self._export, self._own, self._tell, faithful=self._faithful, limits=self._limits)

    def _export(self, target: Target) -> int:
        number = self._exported.get(target)
        if number is not None:
            self._exports[number].count += 1
            return number
        number = self._next_export
        self._next_export -= 1
        self._exports[number] = _Export(Slot.of(target))
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
        """The other side has read what was sent: answers that waited go out."""
        self._full = False
        while self._later and not self._full:
            self._answer(self._later.popleft())
        self._eased.set()

    # Work, as the evaluator asks for it.

    def begin(self, call: Callable[[], Any], slot: Slot) -> None:
        """As `Work.begin`."""
        if len(self._tasks) >= _HARD * self._limits.pending:
            hint = "Await some before you make more"
            slot.settle(Outcome(error=Backpressure(f"{len(self._tasks)} calls are under way", hint=hint)))
            return
        try:
            given = call()
        except Exception as error:  # noqa: BLE001 - it is the call's outcome
            slot.settle(Outcome(error=error))
            return
        if not inspect.isawaitable(given):
            slot.settle(self._bounded(Outcome(given)))
            return
        task = asyncio.get_running_loop().create_task(self._finish(given, slot))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _finish(self, given: Awaitable[Any], slot: Slot) -> None:
        try:
            outcome = self._bounded(Outcome(await given))
        except asyncio.CancelledError:
            slot.settle(Outcome(error=Unreachable("the session ended")))
            raise
        except Exception as error:  # noqa: BLE001 - it is the call's outcome
            outcome = Outcome(error=error)
        slot.settle(outcome)

    def _bounded(self, outcome: Outcome) -> Outcome:
        most = self._limits.result_size
        if weigh(outcome.value, most) <= most:
            return outcome
        return Outcome(error=TooLarge(f"the answer has more than {most} values and characters: ask for less"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._eased.set()

    @property
    def pending(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing is kept for the peer: no call, no watch."""
        return not (self._tasks or len(self.imports) or self._later)

    async def room(self) -> None:
        """Return when a further message may be taken: none is read while this side or the peer is behind."""
        while self.closed is None and (self._full or len(self._tasks) >= self._limits.pending):
            if self.imports.unanswered and not self._full:
                return  # what is under way may wait for the very message that comes next
            self._eased.clear()
            await self._eased.wait()

    async def finish(self) -> None:
        """No message will come any more: return when every call is over. What waits for the peer fails."""
        error = Unreachable("the peer answers nothing more", hint="Use a WebSocket for what goes both ways")
        self.imports.fail(error)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # The importing side.

    def find(self, number: int) -> Slot:
        """As `Scope.find`."""
        export = self._exports.get(number)
        if export is None:
            raise ProtocolError(f"there is no {number}: it was released, or never pushed")
        export.used = True
        return export.slot

    def stub(self, number: int) -> Remote:
        """As `Scope.stub`."""
        return self.imports.stub(number)

    def promise(self, number: int) -> Slot:
        """As `Scope.promise`."""
        return self.imports.promise(number)

    # The end.

    def abort(self, error: BaseException) -> None:
        """Tell the peer why, and end the session."""
        if self.closed is None:
            self._post(_text(["abort", self._encoder().fault(self._tell(error))]))
            self.close(error)

    def close(self, error: BaseException) -> None:
        """End the session: calls under way are no longer waited for, remotes are broken, targets let go. Idempotent."""
        if self.closed is not None:
            return
        self.closed = error
        for task in self._tasks:
            task.get_loop().call_soon(task.cancel)  # after its first step: a call that was made begins
        self.imports.close(Unreachable(f"the session ended: {error}", hint="Open a new one"))
        for export in self._exports.values():
            _tell_unheard(export)
        self._exports.clear()
        self._exported.clear()
        self._later.clear()
        held, self._held = self._held, Counter()
        for target in held:
            target.release()
        self._eased.set()
        if self._when_ended is not None:
            self._when_ended()

    async def settle(self) -> None:
        """Return when no call is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _text(message: list[Any]) -> str:
    return msgspec.json.encode(message).decode()


def _tell_unheard(export: _Export) -> None:
    outcome = export.slot.outcome
    if outcome is not None and outcome.error is not None and not (export.pulled or export.used):
        _log.warning("a call that its client did not await failed: %r", outcome.error)
