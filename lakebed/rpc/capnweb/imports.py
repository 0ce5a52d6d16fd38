"""Imports: what the peer holds for us. What we pushed has positive ids; what it sent by reference has negative ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

import msgspec

from lakebed.errors import Unreachable
from lakebed.rpc.calls import Outcome, Step
from lakebed.rpc.capnweb.errors import ProtocolError
from lakebed.rpc.capnweb.future import Slot
from lakebed.rpc.capnweb.remote_reference import Remote
from lakebed.rpc.capnweb.values import Encoder, Named

__all__ = ["Imports"]


class _Import(msgspec.Struct):
    """One of them: how often the peer introduced it, and how many of us hold it."""

    slot: Slot
    introduced: int = 1
    held: int = 1


class Imports:
    """The import table of one session.

    Args:
        write: sends a message.
        encoder: writes values.
        check: raises ProtocolError when the tables are full.
        answers: whether the peer can be called.
    """

    def __init__(
        self,
        write: Callable[[list[Any]], None],
        encoder: Callable[[], Encoder],
        check: Callable[[], None],
        *,
        answers: bool,
    ) -> None:
        self._write = write
        self._encoder = encoder
        self._check = check
        self.answers = answers
        self._entries: dict[int, _Import] = {}
        self._next = 1
        self._closed: BaseException | None = None
        self.unanswered = 0  # calls that wait for the peer

    def __len__(self) -> int:
        return len(self._entries)

    # What the peer sends.

    def stub(self, number: int) -> Remote:
        """What it exports under `number`. Raises ProtocolError when it cannot."""
        entry = self._entries.get(number)
        if number >= 0 or (entry is not None and entry.slot.outcome is None):
            raise ProtocolError(f"{number} is no export")
        if entry is None:
            self._check()
            self._entries[number] = _Import(Slot.of(None))
        else:
            entry.introduced += 1
            entry.held += 1
        return Remote(self, number)

    def promise(self, number: int) -> Slot:
        """What it will send for its promise `number`."""
        if number >= 0 or number in self._entries:
            raise ProtocolError(f"{number} is no new promise")
        self._check()
        entry = self._entries[number] = _Import(Slot())
        return entry.slot

    def settle(self, number: int, slot: Slot) -> None:
        """It resolved `number`."""
        entry = self._entries.get(number)
        if entry is None:
            return  # let go meanwhile
        if entry.slot.outcome is not None:
            raise ProtocolError(f"{number} was resolved before, or is no promise")
        slot.then(entry.slot.settle)
        self._forget(number)

    def reject(self, number: int, slot: Slot) -> None:
        """It rejected `number`."""
        outcome = slot.outcome
        error = outcome.value if outcome is not None else None
        if not isinstance(error, BaseException):
            error = ProtocolError(f"the peer rejected a call with {error!r:.80}")
        self.settle(number, Slot.failed(error))

    # What we ask of it.

    def push(self, number: int, path: tuple[Step, ...], arguments: list[Any] | None) -> int:
        """Call what lies at `path` of its `number`, or read it where there are no arguments; the id of the result.

        Raises:
            TooLarge, TypeError: an argument cannot be sent. Nothing was.
        """
        expression: list[Any] = ["pipeline", number, list(path)]
        if arguments is not None:
            encoder = self._encoder()
            expression.append([_argument(encoder, argument) for argument in arguments])
        self._write(["push", expression])
        own = self._next
        self._next += 1
        self._entries[own] = _Import(Slot() if self._closed is None else Slot.failed(self._closed))
        return own

    def pull(self, number: int) -> Slot:
        """Ask for the value of what was pushed. Its slot is filled when the peer answers, or the session ends."""
        slot = self._entries[number].slot
        self._write(["pull", number])
        return slot

    def call(self, number: int, arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Call what it exports under `number`."""
        if self._closed is not None:
            return _Answer(Slot.failed(self._closed))
        if not self.answers:
            return _Answer(Slot.failed(Unreachable("an HTTP batch cannot call its client", hint="Use a WebSocket")))
        slot = self.pull(self.push(number, (), list(arguments)))
        self.unanswered += 1
        slot.then(self._answered)
        return _Answer(slot)

    def _answered(self, _outcome: Outcome) -> None:
        self.unanswered -= 1

    # Who holds what.

    def retain(self, number: int) -> None:
        """One more of us holds a remote."""
        if (entry := self._entries.get(number)) is not None:
            entry.held += 1

    def let_go(self, number: int) -> None:
        """One less; after the last the peer is told."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.held -= 1
            if not entry.held:
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._write(["release", number, self._entries.pop(number).introduced])

    def fail(self, error: BaseException) -> None:
        """The peer answers nothing more."""
        for entry in list(self._entries.values()):
            entry.slot.settle(Outcome(error=error))

    def close(self, error: BaseException) -> None:
        """The session is over: what is not answered fails, and so does what is asked from now on."""
        self._closed = error
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.slot.settle(Outcome(error=error))


class _Answer:
    """What a peer will answer. Not awaiting it is fine."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def __await__(self) -> Generator[Any, None, Any]:
        outcome = yield from self._slot.wait().__await__()
        if outcome.error is not None:
            raise outcome.error
        return outcome.value


def _argument(encoder: Encoder, argument: Any) -> Any:
    if isinstance(argument, Named):
        return ["named", {name: encoder.write(value, 1) for name, value in argument.items()}]
    return encoder.write(argument)
