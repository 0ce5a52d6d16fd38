"""Work that would block the loop, and work that must not be interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["finish_despite_cancel", "run_in_thread"]

T = TypeVar("T")


async def run_in_thread(label: str, work: Callable[[], T]) -> T:
    """`work()` in a thread of its own, which is gone afterwards: for what is rare. Cancelling this waits for it."""
    with ThreadPoolExecutor(1, f"lakebed-{label}") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


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
