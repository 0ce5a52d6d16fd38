"""Stub and Promise: calls that start at once. A call can use results of others that are not resolved yet.

rows = stub.dau(7)          # under way; nothing was awaited
latest = await rows[0].dau  # one trip for both
stub.track("Seen")          # fire and forget
"""

# ruff: noqa: SLF001 - public names on stubs and promises are the object's, so ours among themselves are private
from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import msgspec

from lakebed.errors import NotReachable
from lakebed.rpc.capnweb.codec import Step, follow
from lakebed.rpc.capnweb.results import Outcome, PendingResult, Reference, gather, replaced
from lakebed.rpc.members import member

__all__ = ["Batch", "Call", "Promise", "Session", "Stub", "Transport", "trips"]


class Call(msgspec.Struct, eq=False):
    """One call, as in Cap'n Web's `["pipeline", target, path, args]`.

    Attributes:
        source: the result at which the path starts; None means the object itself.
        path: attributes, keys and indexes to follow from the source.
        args: positional arguments, with a `Reference` for each result of another call; None reads the value at the
            path and calls nothing.
        kwargs: named arguments, with References like `args`.
        references: the references in the arguments.
        number: position of this call among all calls to the object.
        begun: whether the call has begun. A call that was cancelled before it began is sent again.
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
        """The results that must be resolved before the call begins: the source, and the results in the arguments."""
        needs = [reference.result for reference in self.references]
        return needs if self.source is None else [self.source, *needs]

    async def ready(self) -> None:
        """Wait for the results in `needs`. Raises the first error among them, with which this call fails too."""
        if needs := self.needs:
            outcome = await gather(needs).wait()
            self.begun = True
            outcome.unwrap()

    async def perform(self, target: Any) -> Any:
        """Wait for the results in `needs`, then call the value at the path from `source`, or from `target` without one.

        Raises:
            NotReachable: the path leads to nothing, or to a value that cannot be called.
            Exception: the error of the call, or of a call that it needs.
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
        """Replace the references in `arguments`, all resolved, by their values."""
        return replaced(arguments, _dereferenced) if self.references else arguments


Batch = Mapping[PendingResult, Call]
"""Calls in order, by their results."""


class Transport(Protocol):
    """Carries batches to an object."""

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """Divide `batch` into parts. Returns each part with a coroutine that makes its calls.

        Calls on the object begin in the order of the batch, and batches begin in the order of sending. A call
        that needs an earlier call's result begins when that is resolved, or fails with the earlier call's error. A
        slow call does not delay others, except over a transport that answers a whole batch at once.

        A coroutine returns the outcomes of its part in order. It may also resolve results earlier. If the coroutine
        raises, every call of the part that is not resolved fails with that error.
        """
        ...


class Session:
    """The calls to one object, in order. The calls of one turn of the loop are one batch: one trip.

    Args:
        transport: carries the batches to the object.
        unhandled: called with each failure that was neither awaited nor passed on.
        busy: the set of all sessions with calls under way, which keeps them from being garbage-collected.
        label: the object's name in messages.
        names: the object's members, for `dir()`.

    Attributes:
        trips: number of batches sent so far.
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
        """Add a call to the batch of this turn of the loop. Returns the call's pending result.

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
        """Whether the call of `result` is in this turn's batch: reading the result then costs no further trip."""
        return result in self._queue

    async def settle(self) -> None:
        """Wait until every call is resolved. Calls that were cancelled before they began are sent again."""
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


class Stub:
    """Represents an object that may be closed or on a server. Stubs are cheap; an object may have any number.

    `stub.method(…)` returns a `Promise` and starts the call; the calls made in one turn of the event loop go to the
    object together, in one trip. Calls on the object begin in the order in which they were made, through any of its
    stubs. Lists, dicts and tuples in arguments are copied when the call is made; other values are passed as they are.

    Only the public methods and attributes of the object's class can be reached, not those that open or close it. If
    a name does not exist there, awaiting the promise raises `NotReachable`.
    """

    __slots__ = ("__weakref__", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Promise:
        step = _public(name)  # first: copy and pickle ask an empty instance for private names
        return Promise(self._session, path=(step,))

    def __dir__(self) -> list[str]:
        return list(self._session.names)

    def __repr__(self) -> str:
        return f"<Stub of {self._session.label}>"

    def __copy__(self) -> Stub:
        return self

    def __deepcopy__(self, _memo: object) -> Stub:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be sent: send the object's name instead")


class Promise:
    """A future value. You can `await` it, read its attributes and elements, call its methods, or pass it to calls.

    Only `await` waits: it gives the value or raises the call's error, each time it is awaited. Cancelling
    the `await` does not stop the call. A call that builds on a promise of this turn of the loop goes in the same trip;
    a call that builds on an earlier promise begins when that promise is resolved.

    A call whose promise is never awaited is still made. Its failure then goes to `on_error` and `check()`.
    """

    __slots__ = ("__weakref__", "_path", "_result", "_root", "_session")

    def __init__(
        self,
        session: Session,
        root: Promise | None = None,
        path: tuple[Step, ...] = (),
        result: PendingResult | None = None,
    ) -> None:
        self._session = session
        self._root = root  # the promise of the call that the path starts from; None: the object itself
        self._path = path
        self._result = result  # of the call, or of the value at the path once that was read

    def __getattr__(self, name: str) -> Promise:
        return self._at(_public(name))

    def __getitem__(self, key: Step) -> Promise:
        if type(key) not in (int, str):
            raise TypeError(f"a promise is indexed by numbers and names, not by {type(key).__name__}: await it first")
        return self._at(key)

    def _at(self, step: Step) -> Promise:
        if self._path or self._result is None:
            return Promise(self._session, self._root, (*self._path, step))
        return Promise(self._session, self, (step,))

    def __call__(self, *args: Any, **kwargs: Any) -> Promise:
        """Call the method that this promise stands for. Arguments may be values or promises."""
        references: list[Reference] = []
        args, kwargs = replaced((args, kwargs), lambda value: _sent(value, references))
        source, path = self._start()
        call = Call(source, path, args, kwargs, references)
        result = self._session.push(call)
        for need in call.needs:
            need.handled = True  # its failure becomes that of this call
        return Promise(self._session, result=result)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._value().__await__()

    async def _value(self) -> Any:
        if self._result is None:
            source, path = self._start()
            if source is not None and not self._session.queued(source):
                return follow(await source.value(), path, member)
        return await (self._result or self._read()).value()

    def _start(self) -> tuple[PendingResult | None, tuple[Step, ...]]:
        """The result at which the path starts (None: the object itself), and the path."""
        if self._root is not None:
            return self._root._result, self._path
        if not self._path and self._result is None:
            raise NotReachable(f"{self._session.label} cannot be awaited", hint="Call one of its methods")
        return (None, self._path) if self._path else (self._result, ())

    def _read(self) -> PendingResult:
        """Push a call that reads the value at this promise's path."""
        source, path = self._start()
        self._result = self._session.push(Call(source, path))
        if source is not None:
            source.handled = True
        return self._result

    def _reference(self) -> Reference:
        """The reference that replaces this promise in the arguments of a call."""
        if self._result is not None:
            return Reference(self._result)
        source, path = self._start()
        return Reference(self._read()) if source is None else Reference(source, path)

    def __del__(self) -> None:
        if self._result is not None:
            self._result.abandon(self._session.unhandled)

    def __repr__(self) -> str:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self._path)
        called = "" if self._root is None and self._path else "(…)"
        return f"<Promise {self._session.label}{called}{path}: await it for its value>"

    def __copy__(self) -> Promise:
        return self

    def __deepcopy__(self, _memo: object) -> Promise:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be sent: await it first")

    def _no_value(self, *_: object) -> NoReturn:
        raise TypeError(f"{self!r} has no value yet: await it first")

    __iter__ = __len__ = __bool__ = __contains__ = __int__ = __float__ = __index__ = _no_value
    __lt__ = __le__ = __gt__ = __ge__ = _no_value
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_value

    def __eq__(self, other: object) -> bool:
        # `promise == 5` would be False for ever, silently.
        return self is other if isinstance(other, Promise) else self._no_value()

    __hash__ = object.__hash__


def trips(stub: Stub) -> int:
    """The number of batches sent to the object of `stub` so far, through any stub of its namespace."""
    return stub._session.trips


def _public(name: str) -> str:
    if name.startswith("_"):
        raise NotReachable(f"{name!r} is private", hint="Use a public name", step=name)
    return name


def _sent(value: Any, references: list[Reference]) -> Any:
    if isinstance(value, Promise):
        reference = value._reference()
        references.append(reference)
        return reference
    return bytes(value) if isinstance(value, bytearray) else value
