"""ObjectPool: the open objects of a namespace, and the transport that carries a stub's calls to them."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from lakebed.clock import Clock
from lakebed.errors import WrongObject
from lakebed.rpc.capnweb.results import Outcome
from lakebed.rpc.stub import Batch, Call

__all__ = ["Enter", "LocalTransport", "ObjectHandle", "ObjectPool"]

Enter = Callable[[], Awaitable[tuple[Any, Callable[[], None]]]]
"""Opens an object for one call: gives it, and the function that ends the call."""


class _Entry:
    """The state of one object that is opening, open or closing."""

    __slots__ = ("calls", "closing", "object", "opening", "used_at")

    def __init__(self, pooled: Any, used_at: float) -> None:
        self.object = pooled
        self.calls = 0  # number of calls under way; the object is closed only at 0
        self.used_at = used_at
        self.opening: asyncio.Task[None]
        self.closing: asyncio.Task[Exception | None] | None = None  # returns the error of closing, if any

    @property
    def awake(self) -> bool:
        return self.opening.done() and self.closing is None

    @property
    def idle(self) -> bool:
        return not self.calls and self.awake

    @property
    def sleeps_at(self) -> float:
        return self.used_at + float(self.object.settings.idle_s)


class ObjectPool:
    """Opens each object once for any number of concurrent callers. Calls wait while their object is closing.

    Args:
        make: returns a closed object of a name and class.
        clock: measures idleness.
        failed: called with the error of closing an object, if no caller waits for the closing.

    Attributes:
        watchers: called with each object that was closed.
    """

    def __init__(
        self, make: Callable[[str, type[Any]], Any], clock: Clock, failed: Callable[[BaseException], None]
    ) -> None:
        self.watchers: list[Callable[[Any], None]] = []
        self._make = make
        self._clock = clock
        self._failed = failed
        self._entries: dict[str, _Entry] = {}
        # Calls enter an object in the order in which they came, also those that waited while it opened or closed.
        self._queues: dict[str, deque[object]] = {}
        self._left = asyncio.Event()  # set when a call ends

    def __iter__(self) -> Iterator[Any]:
        return iter([entry.object for entry in self._entries.values() if entry.awake])

    def names(self) -> frozenset[str]:
        """The names of all objects that are opening, open or closing."""
        return frozenset(self._entries)

    def class_of(self, name: str) -> type[Any] | None:
        """The class of the object with this name if the object is open, else None."""
        entry = self._entries.get(name)
        return type(entry.object) if entry is not None and entry.awake else None

    @asynccontextmanager
    async def use(self, name: str, object_class: type[Any]) -> AsyncIterator[Any]:
        """Open the object, and keep it open while the context is open.

        Raises:
            WrongObject: the object is open as a class that is not `object_class` or a subclass of it.
            Exception: opening the object failed. Every caller that waited for it gets the error.
        """
        pooled, leave = await self.enter(name, object_class)
        try:
            yield pooled
        finally:
            leave()

    async def enter(self, name: str, object_class: type[Any]) -> tuple[Any, Callable[[], None]]:
        """Open the object. It stays open until the caller calls the returned function, once. Raises as `use`."""
        entry = self._entries.get(name)
        if entry is None or not entry.awake or name in self._queues or not isinstance(entry.object, object_class):
            entry = await self._queue_and_enter(name, object_class)
        else:
            entry.calls += 1

        def leave() -> None:
            entry.calls -= 1
            entry.used_at = self._clock.monotonic()
            self._left.set()

        return entry.object, leave

    async def sleep_idle(self, now: float) -> list[str]:
        """Close the objects that have been idle for their `idle_s` at `now`. Returns the closed objects' names."""
        idle = [name for name, entry in self._entries.items() if entry.idle and entry.sleeps_at <= now]
        await self.sleep(*idle)
        return idle

    async def sleep(self, *names: str) -> None:
        """Close each object in `names` that is open and has no call under way."""
        idle = [entry for name in names if (entry := self._entries.get(name)) is not None and entry.idle]
        for error in await asyncio.gather(*map(self._begin_closing, idle)):
            if error is not None:
                self._failed(error)

    async def close(self) -> None:
        """Close all objects, each as soon as its calls are done. The caller must make no new calls until it returns.

        Raises:
            Exception: the first error of closing an object, with the others as notes. Raised when all are closed.
        """
        failures: list[Exception] = []
        while self._entries:
            self._left.clear()
            await asyncio.gather(*(entry.opening for entry in self._entries.values()), return_exceptions=True)
            closing = [
                entry.closing or self._begin_closing(entry) for entry in self._entries.values() if not entry.calls
            ]
            failures += [error for error in await asyncio.gather(*closing) if error is not None]
            if not closing and self._entries:
                await self._left.wait()
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"also: {other!r}")
            raise failures[0]

    def next_sleep(self) -> float | None:
        """The earliest monotonic second at which an idle object reaches its `idle_s`; None if no object is idle."""
        return min((entry.sleeps_at for entry in self._entries.values() if entry.idle), default=None)

    async def _queue_and_enter(self, name: str, object_class: type[Any]) -> _Entry:
        queue, place = self._queues.setdefault(name, deque()), object()
        queue.append(place)
        try:
            return await self._enter(name, object_class, lambda: queue[0] is place)
        finally:
            queue.remove(place)
            if not queue:
                del self._queues[name]

    async def _enter(self, name: str, object_class: type[Any], is_first: Callable[[], bool]) -> _Entry:
        while (entry := self._entries.get(name)) is not None and entry.closing is not None:
            await asyncio.wait([entry.closing])
        if entry is None:
            entry = self._entries[name] = _Entry(self._make(name, object_class), self._clock.monotonic())
            entry.opening = asyncio.ensure_future(self._open(name, entry))
        elif not isinstance(entry.object, object_class):
            raise WrongObject(
                f"{name!r} is open as {type(entry.object).__name__}, which is not a {object_class.__name__}",
                hint=f"Use one class for each object, or close it before you open it as {object_class.__name__}",
                name=name,
            )
        entry.calls += 1
        try:
            await asyncio.shield(entry.opening)
            while not is_first():  # noqa: ASYNC110 - the calls before it have the object too: one or two turns
                await asyncio.sleep(0)
        except BaseException:
            entry.calls -= 1
            self._left.set()
            raise
        return entry

    async def _open(self, name: str, entry: _Entry) -> None:
        try:
            await entry.object.open()
        except BaseException:
            del self._entries[name]
            raise

    def _begin_closing(self, entry: _Entry) -> asyncio.Task[Exception | None]:
        entry.closing = asyncio.ensure_future(self._close(entry))
        return entry.closing

    async def _close(self, entry: _Entry) -> Exception | None:
        try:
            await entry.object.close()
        except Exception as error:  # noqa: BLE001 - returned to the caller, which may be a timer
            return error
        finally:
            del self._entries[entry.object.name]
            for watcher in self.watchers:
                watcher(entry.object)
        return None


class ObjectHandle:
    """Calls methods of an object, which each call opens if it is closed: `await handle.counters.top("*")`.

    A call begins at once, after all earlier calls; cancelling the `await` does not stop the call. Unlike a `Stub`
    a handle copies no arguments, hides no members and makes no promises. Names from the network must not be used on it.

    Args:
        enter: opens the object for one call.
        tasks: the set of all calls under way.
        unhandled: called with the error of a call whose `await` was cancelled.
        path: the attributes from the object to the method.
    """

    __slots__ = ("_enter", "_path", "_tasks", "_unhandled")

    def __init__(
        self,
        enter: Enter,
        tasks: set[asyncio.Task[Any]],
        unhandled: Callable[[BaseException], None],
        path: tuple[str, ...] = (),
    ) -> None:
        self._enter = enter
        self._tasks = tasks
        self._unhandled = unhandled
        self._path = path

    def __getattr__(self, name: str) -> ObjectHandle:
        if name.startswith("_"):
            raise AttributeError(name)
        return ObjectHandle(self._enter, self._tasks, self._unhandled, (*self._path, name))

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Call the method. Returns a future of its result."""
        task = asyncio.get_running_loop().create_task(self._perform(args, kwargs))
        self._tasks.add(task)
        future = asyncio.shield(task)
        task.add_done_callback(lambda _: self._end(task, future))
        return future

    async def _perform(self, args: Any, kwargs: Any) -> Any:
        target, leave = await self._enter()
        try:
            for name in self._path:
                target = getattr(target, name)
            value = target(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        finally:
            leave()

    def _end(self, task: asyncio.Task[Any], future: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if future.cancelled() and not task.cancelled() and (error := task.exception()) is not None:
            self._unhandled(error)


class LocalTransport:
    """Carries calls to an object of this process. Each call keeps the object open until just before its result.

    Args:
        enter: opens the object for one call.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """As `Transport.send`: each call is a part. A call keeps the object open while it waits for another call."""
        for result, call in batch.items():
            yield {result: call}, self._perform(call)

    async def _perform(self, call: Call) -> list[Outcome]:
        if call.source is not None and call.source.outcome is not None:  # the source has its value: no object is needed
            return [Outcome(await call.perform(None))]
        target, leave = await self._enter()
        try:
            return [Outcome(await call.perform(target))]
        finally:
            leave()
