"""Runs work that would block the loop, and work that must not be interrupted."""

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
    """A named thread with a queue, which runs blocking calls beside the loop, in the order in which they were made.

    The thread starts with the first call and ends in `close`.

    Promised: after `close` no thread is left and no call is running.
    Not promised: that cancelling stops a call. A cancelled call that has begun runs to its end, and its result is
    dropped; a cancelled call that still waits in the queue never begins.

    Args:
        label: the thread's name after "lakebed-".
        threads: the number of calls that may run at once. Give more than one only if a long call must not delay other
            calls; the order of calls is then not promised.
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
        """Call `function(*args)` in the thread. The call runs even if the returned future is not awaited.

        Raises:
            ObjectClosed: `close` was called.
        """
        if self._closed:
            raise ObjectClosed(f"the thread {self._label} is closed", hint="Open the object again")
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, f"lakebed-{self._label}")
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def close(self, *, wait: bool = True) -> None:
        """Refuse new calls, and block until the calls in the queue are done and the thread has ended. Idempotent.

        Args:
            wait: if False, return at once; the calls in the queue still run. Call `close` again to join the thread.
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
    """Run `work()`, which must be rare, in a new thread that ends before this returns. Cancelling waits for `work`."""
    with Worker(label) as worker:
        return await worker.run(work)


async def finish_despite_cancel(work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """Await `work` to its end, even if the caller is cancelled. The cancellation is raised after `work` has ended."""
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
