"""Work that would block the loop, and work that must not be interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

from lakebed.errors import ObjectClosed

__all__ = ["Worker", "finish_despite_cancel", "run_in_thread"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Worker:
    """A named thread with a queue: it runs blocking calls beside the loop, in the order in which they were made.

    The thread starts with the first call and ends in `close`.

    Promised: after `close` no thread is left and no call is running.
    Not promised: that cancelling stops a call. A call that has begun runs to its end and its result is dropped; one
    that still waits in the queue is not begun.

    Args:
        label: the thread's name after "lakebed-".
        threads: how many calls may run at once. More than one only where a long call must not hold up others; the
            order is then not promised.
    """

    def __init__(self, label: str, threads: int = 1) -> None:
        self._label = label
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    @property
    def has_thread(self) -> bool:
        """Whether the thread was started and `close` was not called."""
        return self._executor is not None and not self._closed

    def run(self, function: Callable[[*Arguments], T], *args: *Arguments) -> asyncio.Future[T]:
        """Call `function(*args)` in the thread. Await the result, or leave the call to run.

        Raises:
            ObjectClosed: after `close`.
        """
        if self._closed:
            raise ObjectClosed(f"the thread {self._label} is closed", hint="Open the object again")
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, f"lakebed-{self._label}")
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def close(self, *, wait: bool = True) -> None:
        """Refuse new calls, and block until those in the queue are done and the thread has ended. Idempotent.

        Args:
            wait: False returns at once; the queue is still worked off. Call `close` once more to join the thread.
        """
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def run_in_thread(label: str, work: Callable[[], T]) -> T:
    """`work()` in a thread of its own, which has ended when this returns: for rare work. Cancelling waits for it."""
    with Worker(label) as worker:
        return await worker.run(work)


async def finish_despite_cancel(work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """Await `work` to its end, whatever is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
