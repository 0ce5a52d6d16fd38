"""PendingResult: the result of a call, there now or later. In-process stubs and sessions both use it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import msgspec

__all__ = ["Outcome", "PendingResult", "Reference", "gather", "replaced"]

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
