from __future__ import annotations

import asyncio
import threading

import pytest

from lakebed.concurrency import Worker, finish_despite_cancel, run_in_thread
from lakebed.errors import ObjectClosed


def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lakebed-w")]


async def test_calls_run_in_order_in_one_named_thread():
    """The thread starts with the first call, has the worker's name, and is gone after close."""
    seen = []
    worker = Worker("w")
    assert (worker.has_thread, names()) == (False, [])
    calls = [worker.run(lambda number: seen.append((number, threading.current_thread().name)), n) for n in range(20)]
    await asyncio.gather(*calls)
    assert seen == [(number, "lakebed-w_0") for number in range(20)]
    assert worker.has_thread
    worker.close()
    worker.close()
    assert (worker.has_thread, names()) == (False, [])


async def test_close_refuses_new_calls_and_finishes_those_in_the_queue():
    """Calls made before close are done when it returns; a later call is refused and starts no thread."""
    seen = []
    with Worker("w") as worker:
        calls = [worker.run(seen.append, number) for number in range(100)]
    assert seen == list(range(100))
    await asyncio.gather(*calls)
    for closed in (worker, Worker("w")):
        closed.close()
        with pytest.raises(ObjectClosed):
            closed.run(seen.append, 0)
    assert names() == []


async def test_close_without_waiting_is_joined_by_the_next_close():
    """close(wait=False) returns while a call runs; the next close waits for it."""
    going, seen = threading.Event(), []
    worker = Worker("w")
    call = worker.run(lambda: (going.wait(20), seen.append(1)))
    worker.close(wait=False)
    assert seen == []
    going.set()
    worker.close()
    assert (seen, names()) == ([1], [])
    await call


async def test_cancelling_drops_a_result_and_a_call_that_waits():
    """A call that has begun runs to its end; one in the queue is never begun."""
    going, seen = threading.Event(), []
    with Worker("w") as worker:
        first = worker.run(lambda: (going.wait(20), seen.append("first")))
        second = worker.run(seen.append, "second")
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        await asyncio.sleep(0)  # asyncio hands the cancellation on in its next turn
        going.set()
    assert seen == ["first"]
    assert (first.cancelled(), second.cancelled()) == (True, True)


async def test_errors_reach_the_caller():
    """What the function raises, the await raises; the worker goes on."""
    with Worker("w") as worker:
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.run(divmod, 7, 2) == (3, 1)


async def test_several_threads():
    """With two threads a long call does not hold up a short one."""
    going = threading.Event()
    with Worker("w", threads=2) as worker:
        long = worker.run(going.wait, 20)
        assert await worker.run(lambda: "short") == "short"
        going.set()
        assert await long


async def test_one_off_work_has_a_thread_of_its_own():
    """run_in_thread gives the result, and its thread is gone."""
    assert await run_in_thread("w-once", lambda: threading.current_thread().name) == "lakebed-w-once_0"
    assert names() == []


async def test_finish_despite_cancel_ends_the_work_first():
    """The cancellation comes after the work, and is not lost."""
    done = asyncio.Event()

    async def work():
        await asyncio.sleep(0.001)
        done.set()

    task = asyncio.create_task(finish_despite_cancel(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
