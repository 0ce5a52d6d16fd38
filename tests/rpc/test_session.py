"""Session: which calls are sent again, and when it is idle."""

from __future__ import annotations

import asyncio

import pytest

from lakebed.objects.namespace import Namespace
from tests.rpc.shop import Shop


@pytest.mark.parametrize("turns", range(1, 6))
async def test_a_call_that_was_cancelled_before_it_began_is_sent_again(tmp_path, turns):
    """As at the end of `asyncio.run`, which cancels all tasks at once: no call is lost, and the order stays."""
    async with Namespace(tmp_path, Shop) as namespace:
        shop = namespace.get("tom")
        notes = [(shop.anote if n % 2 else shop.note)(f"{n}") for n in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks = list(shop._session._tasks)
        for task in tasks:
            task.cancel()
        await namespace.flush()
        assert await shop.notes() == [f"{n}" for n in range(10)]
        counts = await asyncio.gather(*notes, return_exceptions=True)
        assert not [count for count in counts if not isinstance(count, (int, asyncio.CancelledError))]
        assert not shop._session._tasks
        assert not namespace._busy
        namespace._failures.clear()


async def test_a_call_on_a_cancelled_one_fails_alike(tmp_path):
    """A call that began and was cancelled is over; so is what was built on it. Neither is sent again."""
    async with Namespace(tmp_path, Shop) as namespace:
        shop = namespace.get("tom")
        waiting = shop.wait()
        built = shop.echo(waiting)
        await asyncio.sleep(0)
        first, second = shop._session._tasks
        while not shop._session._tasks[first] or not next(iter(shop._session._tasks[first].values())).begun:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second])
        for promise in (waiting, built):
            with pytest.raises(asyncio.CancelledError):
                await promise
        assert await shop.notes() == []
