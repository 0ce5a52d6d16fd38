"""Session: the calls to one object, in order, from when they are made until they are resolved."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lakebed.errors import NotReachable
from lakebed.rpc.capnweb.codec import Step, follow
from lakebed.rpc.capnweb.pending import Outcome, PendingResult, Reference, gather, replaced
from lakebed.rpc.members import member

__all__ = ["Batch", "Call", "Session", "Transport"]


class Call(msgspec.Struct, eq=False):
    """One call, as in Cap'n Web's `["pipeline", target, path, args]`.

    Attributes:
        source: the result that the path starts from; None for the object itself.
        path: attributes, keys and indexes to follow from there.
        args: positional arguments, with a `Reference` for each result of another call; None reads the value at the
            path and calls nothing.
        kwargs: named arguments, likewise.
        references: the references in the arguments.
        number: its place among the calls to the object.
        begun: whether it was begun. A call that was cancelled before is sent again.
    """

    source: PendingResult | None
    path: tuple[Step, ...]
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = {}
    references: list[Reference] = []
    number: int = 0
    begun: bool = False

    @property
    def needs(self) -> list[PendingResult]:
        """The results that must be resolved before it begins."""
        needs = [reference.result for reference in self.references]
        return needs if self.source is None else [self.source, *needs]

    async def ready(self) -> None:
        """Return when its needs are resolved. Raises the first failure among them, which is then its own."""
        if needs := self.needs:
            outcome = await gather(needs).wait()
            self.begun = True
            outcome.unwrap()

    async def perform(self, target: Any) -> Any:
        """Make the call on `target`, or on the value of its source, when its needs are resolved.

        Raises:
            NotReachable: the path leads to nothing, or to a value that cannot be called.
            Exception: the call, or one that it needs, raised it.
        """
        await self.ready()
        self.begun = True
        if self.source is not None and self.source.outcome is not None:
            target = self.source.outcome.value
        value = follow(target, self.path, member)
        if self.args is None:
            return value
        if not callable(value):
            dotted = ".".join(map(str, self.path)) or "this value"
            raise NotReachable(f"{dotted} is not a method", hint="Read it without calling it")
        value = value(*self.filled(self.args), **self.filled(self.kwargs))
        return await value if inspect.isawaitable(value) else value

    def filled(self, arguments: Any) -> Any:
        """`arguments` with the values of their references, which are resolved."""
        return replaced(arguments, _dereferenced) if self.references else arguments


Batch = Mapping[PendingResult, Call]
"""Calls in order, by their results."""


class Transport(Protocol):
    """Carries batches to an object."""

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """The work of carrying `batch`, in parts: coroutines that make the calls of their part.

        Calls on the object begin in the order of the batch, and batches in the order in which they were sent. A call
        with an earlier call's result begins when that is resolved; if that failed, it fails with the same error. A
        slow call need not hold up others; over a transport that answers once for a batch, it does.

        A coroutine returns the outcomes of its part in order; it may also resolve results itself, earlier. If it
        raises, every call that is not resolved then fails with that error.
        """
        ...


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
        self._pushed = 0
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
        self._pushed += 1
        call.number = self._pushed
        result = PendingResult()
        self._queue[result] = call
        return result

    def queued(self, result: PendingResult) -> bool:
        """Whether the call of `result` is in the batch of this turn, so that a read of it costs no further trip."""
        return result in self._queue

    async def settle(self) -> None:
        """Return when every call that was made is resolved. Those cancelled before they began are sent again."""
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
            self._queue = dict(sorted((unsent | self._queue).items(), key=lambda item: item[1].number))
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


def _dereferenced(value: Any) -> Any:
    if isinstance(value, Reference) and value.result.outcome is not None:
        return follow(value.result.outcome.unwrap(), value.path, member)
    return value
