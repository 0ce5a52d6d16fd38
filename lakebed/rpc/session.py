"""The stub's side of the calls: gather those of one turn of the loop, send them, keep them until they are answered."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lakebed.rpc.calls import Call, Outcome, Step, Transport, Unsent
from lakebed.rpc.dispatch import begin, finish

__all__ = ["PendingResult", "Session"]


class PendingResult:
    """What one call will give. The session fills it; promises read it.

    A failure that no promise delivered is unheard: it is told to the session when the last promise is gone, or at once
    if none is left. `heard` is set by whoever passes the failure on (an `await`, or a later call that builds on this).
    """

    __slots__ = ("_error", "_session", "_value", "_waiting", "batch", "done", "handles", "heard", "number")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.done = False
        self.heard = False
        self.handles = 0  # promises that can still be awaited
        self.batch: object = None  # the batch it travels with, and its number there from 1
        self.number = 0

    async def value(self) -> Any:
        """The call's value, when it is there. Raises what the call raised. Cancelling this leaves the call alone."""
        if not self.done:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        self.heard = True
        if self._error is not None:
            raise self._error
        return self._value

    def settle(self, outcome: Outcome) -> None:
        """Fill it, once."""
        self._value, self._error, self.done = outcome.value, outcome.error, True
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
                self.heard = True
        self._tell()

    def drop(self) -> None:
        """One promise is gone."""
        self.handles -= 1
        self._tell()

    def _tell(self) -> None:
        if self.done and self._error is not None and not self.handles and not self.heard:
            self.heard = True
            self._session.unheard(self._error)


class Session:
    """The calls to one object, in order. Its calls of one turn of the loop go as one batch: one trip.

    Args:
        transport: how batches reach the object.
        unheard: called with each failure that nobody awaited.
        keep: holds every session that has work, so that none is collected with calls under way.
        label: names the object in messages.
        names: what the object offers, for `dir()`.
    """

    def __init__(
        self,
        transport: Transport,
        unheard: Callable[[BaseException], None],
        keep: set[Session],
        label: str,
        names: Sequence[str],
    ) -> None:
        self._transport = transport
        self.unheard = unheard
        self._keep = keep
        self.label = label
        self.names = names
        self.trips = 0
        self._calls: list[Call] = []
        self._answers: list[PendingResult] = []
        self._unsent: list[
            tuple[int, list[Call], list[PendingResult]]
        ] = []  # numbered batches, also those that came back
        self._tasks: dict[asyncio.Task[None], PendingResult | None] = {}  # with the answer that a task owes

    def gathers(self, answer: PendingResult) -> bool:
        """Whether `answer` belongs to the batch that is being gathered, so that calls may build on it in one trip."""
        return answer.batch is self._answers

    def push(self, call: Call, answer: PendingResult) -> None:
        """Add a call to the batch of this turn.

        Raises:
            RuntimeError: no event loop is running.
        """
        if not self._answers:
            _running_loop().call_soon(self._depart)
            self._keep.add(self)
        self._calls.append(call)
        self._answers.append(answer)
        answer.batch, answer.number = self._answers, len(self._answers)

    def run(self, work: Coroutine[Any, Any, None], owes: PendingResult | None = None) -> None:
        """Run `work`, kept until it is done. If it is cancelled, so is the answer that it `owes`."""
        try:
            task = _running_loop().create_task(work)
        except RuntimeError:
            work.close()
            raise
        self._tasks[task] = owes
        self._keep.add(self)
        task.add_done_callback(self._end)

    async def settle(self) -> None:
        """Wait until every call that was made is answered. Sends again what did not begin."""
        while self.busy:
            self._depart()
            if not self._tasks:
                for _ in self._unsent:
                    self.run(self._trip())
            await asyncio.wait(set(self._tasks))

    @property
    def busy(self) -> bool:
        """Whether a call is not answered yet."""
        return bool(self._answers or self._tasks or self._unsent)

    def _depart(self) -> None:
        if self._answers:
            self.trips += 1
            self._unsent.append((self.trips, self._calls, self._answers))
            self._calls, self._answers = [], []
            self.run(self._trip())

    async def _trip(self) -> None:
        # Taken here and not by _depart: a task that is cancelled before its first step loses its arguments.
        first = min(self._unsent, key=operator.itemgetter(0))
        self._unsent.remove(first)
        _, calls, answers = first
        error: BaseException = RuntimeError(f"a call to {self.label} got no outcome")
        try:
            await self._transport.send(calls, lambda number, outcome: answers[number].settle(outcome))
        except Unsent:
            self._unsent.append(first)
            return
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - it is every other call's outcome
            error = raised
        for answer in answers:
            if not answer.done:
                answer.settle(Outcome(error=error))

    def _end(self, task: asyncio.Task[None]) -> None:
        owed = self._tasks.pop(task)
        if task.cancelled() and owed is not None and not owed.done:
            owed.settle(Outcome(error=asyncio.CancelledError()))
        if not self.busy:
            self._keep.discard(self)


async def call_value(value: Any, path: tuple[Step, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call what lies at `path` of a value that is already here."""
    outcomes: list[Outcome] = []
    await finish(await begin(value, [Call(0, path, args, kwargs)]), lambda _number, outcome: outcomes.append(outcome))
    return outcomes[0]


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("a stub needs a running event loop: in synchronous code use lakebed.connect()") from None
