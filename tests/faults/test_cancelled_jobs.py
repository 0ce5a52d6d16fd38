"""Cancelled jobs: the running step completes, and no resources are left."""

import asyncio
import random

import pytest

from tests.faults.orders import fill, holds


async def cancelled_after(work, turns):
    """Let `work` run for some turns of the loop, then cancel it. Returns whether it was finished."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return not task.cancelled()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
async def test_query_46_cancelled_jobs_leave_nothing(make, clock, seed):
    """Every job, cancelled at any of its steps, can be run again; no event is lost or doubled, and no pin is held."""
    rng = random.Random(seed)
    async with make() as shop:
        jobs = [shop.archive, shop.archive, shop.rollup, shop.compact, shop.expire, shop.collect_garbage, shop.tidy]
        jobs += [shop.settle, shop.check, shop.snapshots, lambda: shop.dau(3)]
        ended = 0
        for number in range(60):
            await fill(shop, number, number + 1)
            clock.advance(300)
            ended += await cancelled_after(rng.choice(jobs)(), rng.choice([0, 1, 2, 3, 5, 8, 20, 200, 2000]))
            assert await holds(shop, number + 1)
        assert 0 < ended < 60, "some must be cut off, and some come to their end"
        await shop.archive()
        await shop.rollup()
        assert await holds(shop, 60)
        assert await shop.check() == []
        tiers = shop._components
        assert tiers.archive._pins._held == {}
        assert sum(tiers.pipeline._files._pins.values()) == 0
        assert not tiers.queries._running
