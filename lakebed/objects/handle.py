"""ObjectHandle: the short way to call an object of this process. The server uses it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Enter", "ObjectHandle"]

Enter = Callable[[], Awaitable[tuple[Any, Callable[[], None]]]]
"""Opens an object for one call: gives it, and the function that ends the call."""


class ObjectHandle:
    """Calls methods of an object that may be asleep: `await handle.counters.top("*")`.

    A call begins at once, after all that were made before it; cancelling the `await` does not stop it. It is the method
    itself that is called: unlike a `Stub` a handle copies no arguments, hides no members and builds nothing on a call
    that is not resolved, so names that come from the network must not be given to it.

    Args:
        enter: opens the object for one call.
        tasks: the set of all calls under way.
        unhandled: called with the failure of a call whose `await` was cancelled.
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
        """Call the method. The future has its result."""
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
