"""Session: the calls to one object, in order, from when they are made until they are resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lakebed.rpc.calls import Batch, Call, Transport
from lakebed.rpc.capnweb.pending import Outcome, PendingResult

__all__ = ["Session"]


class Session:
    """The calls to one object, in order. The calls of one turn of the loop are one batch: one trip.

    Args:
        transport: carries the batches to the object.
        unhandled: called with each failure that was neither awaited nor passed on.
        busy: the set of all sessions that have work, so that none is collected with calls under way.
        label: the object's name in messages.
        names: the object's members, for `dir()`.

    Attributes:
        trips: how many batches were sent.
    """

    def __init__(
        self,
        transport: Transport,
        unhandled: Callable[[BaseException], None],
        busy: set[Session],
        label: str,
        names: Sequence[str],
    ) -> None:
        self.unhandled = unhandled
        self.label = label
        self.names = names
        self.trips = 0
        self._transport = transport
        self._all_busy = busy
        self._queue: dict[PendingResult, Call] = {}
        self._scheduled = False  # whether a flush comes in this turn of the loop
        self._tasks: dict[asyncio.Task[list[Outcome]], Batch] = {}

    def push(self, call: Call) -> PendingResult:
        """Add a call to the batch of this turn.

        Raises:
            RuntimeError: no event loop is running.
        """
        if not self._scheduled:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                message = "a stub needs a running event loop: in synchronous code use lakebed.connect()"
                raise RuntimeError(message) from None
            self._scheduled = True
            self._all_busy.add(self)
        result = PendingResult()
        self._queue[result] = call
        return result

    def queued(self, result: PendingResult) -> bool:
        """Whether the call of `result` is in the batch of this turn, so that a read of it costs no further trip."""
        return result in self._queue

    async def settle(self) -> None:
        """Return when every call that was made is resolved. Sends again what was cancelled before it began."""
        while self._queue or self._tasks:
            self._flush()
            await asyncio.wait(set(self._tasks))

    def _flush(self) -> None:
        self._scheduled = False
        if self._queue:
            batch, self._queue = self._queue, {}
            self.trips += 1
            for part, work in self._transport.send(batch):
                self._run(part, work)

    def _run(self, batch: Batch, work: Coroutine[Any, Any, list[Outcome]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = batch
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[list[Outcome]]) -> None:
        batch = self._tasks.pop(task)
        if task.cancelled() and (unsent := {result: call for result, call in batch.items() if not call.begun}):
            self._queue = unsent | self._queue
            batch = {result: call for result, call in batch.items() if call.begun}
        for result, outcome in zip(batch, self._outcomes(task, len(batch)), strict=True):
            result.resolve(outcome)
        if not (self._queue or self._tasks):
            self._all_busy.discard(self)

    def _outcomes(self, task: asyncio.Task[list[Outcome]], count: int) -> list[Outcome]:
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        outcomes = [] if error is not None else task.result()
        missing = Outcome(error=error or RuntimeError(f"a call to {self.label} got no outcome"))
        return [*outcomes, *[missing] * (count - len(outcomes))]
