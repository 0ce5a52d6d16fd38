"""Slot: a value that is there, or will be."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from lakebed.rpc.calls import Outcome

__all__ = ["Slot", "when_all"]


class _Turns(threading.local):
    """Calls that follow from one another, one after another: a chain of thousands must not be a stack of thousands."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[Outcome], None], Outcome]] = deque()
        self._running = False

    def take(self, calls: Iterable[tuple[Callable[[Outcome], None], Outcome]]) -> None:
        """Make `calls`, and what follows from them; or have whoever is doing that do it."""
        self._waiting.extend(calls)
        if self._running:
            return
        self._running = True
        try:
            while self._waiting:
                call, outcome = self._waiting.popleft()
                call(outcome)
        finally:
            self._running = False


_turns = _Turns()


class Slot:
    """Filled once. Who waits is called in the order in which it asked, so what was pipelined begins in order."""

    __slots__ = ("_waiting", "outcome")

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome
        self._waiting: list[Callable[[Outcome], None]] = []

    @classmethod
    def of(cls, value: Any) -> Slot:
        """A slot that holds `value`."""
        return cls(Outcome(value))

    @classmethod
    def failed(cls, error: BaseException) -> Slot:
        """A slot that holds `error`."""
        return cls(Outcome(error=error))

    def settle(self, outcome: Outcome) -> None:
        """Fill it. Does nothing when it is full."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        waiting, self._waiting = self._waiting, []
        _turns.take([(call, outcome) for call in waiting])

    def then(self, call: Callable[[Outcome], None]) -> None:
        """Have `call` called with the outcome: now, or when it is there."""
        if self.outcome is not None:
            call(self.outcome)
        else:
            self._waiting.append(call)

    async def wait(self) -> Outcome:
        """The outcome, when it is there."""
        if self.outcome is None:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.then(lambda outcome: None if future.done() else future.set_result(outcome))
            return await future
        return self.outcome


def when_all(slots: Iterable[Slot], call: Callable[[], None]) -> None:
    """Call `call` when all `slots` are full: now, if they are."""
    waiting = [slot for slot in slots if slot.outcome is None]
    missing = len(waiting)
    if not missing:
        call()

    def one(_outcome: Outcome) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            call()

    for slot in waiting:
        slot.then(one)
