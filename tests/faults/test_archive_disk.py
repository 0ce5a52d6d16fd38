"""The archive on a disk that fails from time to time."""

import errno
import random

import pytest

from lakebed import LakebedError
from tests.disks import FaultyDisk
from tests.faults.orders import fill, holds

OPERATIONS = ("create", "write", "write header", "sync", "sync_directory", "remove", "close")
FILES = (".parquet", ".avro", ".metadata.json", "metadata", "data", "")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_l3_23_failing_file_operations_lose_nothing(make, clock, seed):
    """A failure of any operation in any job: a typed error or none, nothing is lost or doubled, and work goes on."""
    rng = random.Random(seed)
    disk = FaultyDisk()
    failed = 0
    async with make(disk=disk, segment_events=1000) as shop:
        jobs = [shop.archive, shop.archive, shop.compact, shop.expire, shop.collect_garbage, shop.tidy]
        await fill(shop, 0, 3)
        await shop.archive()
        for number in range(3, 40):
            await fill(shop, number, number + 1)
            clock.advance(60)
            code = rng.choice([errno.EIO, errno.ENOSPC, errno.EROFS])
            disk.fail(rng.choice(OPERATIONS), code, name=rng.choice(FILES), after=rng.choice([0, 0, 1, 3]), times=2)
            try:
                await rng.choice(jobs)()
            except LakebedError:
                failed += 1
            disk.heal()
            assert await holds(shop, number + 1)
        assert 3 < failed < 37
        await shop.archive()
        await shop.compact()
        await shop.tidy()
        assert await holds(shop, 40)
        assert await shop.check() == []
        assert [name for name in disk.open_descriptors.values() if not name.endswith(".log")] == []
    async with make() as shop:
        assert await holds(shop, 40)
        assert (await shop.query("SELECT sum(total) FROM revenue")).scalar() == sum(range(40)) / 2
