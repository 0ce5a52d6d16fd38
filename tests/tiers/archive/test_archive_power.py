import random
import shutil

import pytest

from tests.tiers.archive.archive_fixtures import START, Died, PowerlessDisk, events, open_archive, seqs

pytestmark = pytest.mark.integration


@pytest.fixture(params=[4, pytest.param(1, marks=pytest.mark.slow)])
def step(request):
    """Every fourth operation in the normal suite, each one in the slow one."""
    return request.param


async def after_power_losses(root, step, prepare, act):
    """Run `act` and cut the power at one file operation after the other; yield the archive opened after each."""
    place, copy = root / "place", root / "copy"  # always at one path: Iceberg's metadata has absolute paths
    place.mkdir()
    healthy = open_archive(place)
    await prepare(healthy)
    await healthy.close()
    shutil.copytree(place, copy)
    for lives in range(step - 1, 1000, step):
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        disk = PowerlessDisk(place, lives)
        mortal = open_archive(place, disk=disk)
        try:
            await act(mortal)
        except Died:
            lived = False
        else:
            lived = True
        await mortal.close()
        disk.lose(random.Random(lives))
        again = open_archive(place)
        yield again, lived
        assert await again.check() == []
        await again.close()
        if lived:
            return


async def three_batches(archive):
    for start in (0, 4, 8):
        await archive.append(events(start, start + 4, at=lambda seq: START + seq), start, start + 4)


async def test_l3_32_power_lost_in_an_append(tmp_path, step):
    """The catalog never names a file that a power loss removed: the archive has the complete old or new state."""

    async def act(archive):
        await archive.append(events(12, 16), 12, 16)

    losses = 0
    async for archive, lived in after_power_losses(tmp_path, step, three_batches, act):
        losses += not lived
        there = await archive.watermark() == 16
        assert there or not lived, "it had returned"
        assert await seqs(archive) == list(range(16 if there else 12))
        assert await archive.append(events(12, 16), 12, 16) is not there
        await archive.collect_garbage()
        assert await seqs(archive) == list(range(16))
    assert losses > 10 / step


async def test_l3_32_power_lost_in_the_first_append(tmp_path, step):
    """The same with new directories, catalog and table."""

    async def act(archive):
        await archive.append(events(0, 4), 0, 4)

    async def nothing(_):
        pass

    async for archive, lived in after_power_losses(tmp_path, step, nothing, act):
        assert await archive.append(events(0, 4), 0, 4) is not lived or not lived
        assert await seqs(archive) == [0, 1, 2, 3]


@pytest.mark.parametrize("job", ["compact", "erase", "expire", "collect_garbage"])
async def test_l3_32_power_lost_in_maintenance(tmp_path, step, job):
    """The same for compaction, expiry and collection; another run completes them."""

    async def prepare(archive):
        await three_batches(archive)
        if job in ("expire", "collect_garbage"):
            await archive.compact()
        if job == "collect_garbage":
            await archive.expire()

    async def act(archive):
        await (archive.erase("user_id", ["u5"]) if job == "erase" else getattr(archive, job)())

    whole = list(range(12))
    erased = [seq for seq in whole if seq % 7 != 5]
    async for archive, lived in after_power_losses(tmp_path, step, prepare, act):
        assert await archive.watermark() == 12
        if job != "erase":
            assert await seqs(archive) == whole
        else:
            assert await seqs(archive) in ([erased] if lived else [whole, erased])
            await act(archive)
            assert await seqs(archive) == erased
