"""The archive on an Iceberg REST catalog whose answers get lost, over real HTTP."""

from functools import partial

import pytest

from lakebed.errors import ArchiveConflict, ArchiveUnavailable
from tests.tiers.archive.archive_fixtures import START, events, open_archive, seqs
from tests.tiers.archive.rest_server import RestServer

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path):
    with RestServer(tmp_path) as server:
        yield server


@pytest.fixture
async def archive(server, tmp_path):
    archive = open_archive(tmp_path, catalog=server.properties)
    await same_day(archive, 0, 4)
    yield archive
    await archive.close()


async def same_day(archive, start, end):
    return await archive.append(events(start, end, at=lambda seq: START + seq), start, end)


async def test_a_rest_catalog_keeps_an_archive(server, archive, tmp_path):
    """An archive over HTTP works like one with a catalog in a file."""
    await same_day(archive, 4, 8)
    assert (await archive.compact()).files_after == 1
    assert (await archive.erase("user_id", ["u3"])).rows == 1
    await archive.expire()
    assert (await archive.collect_garbage()).paths
    other = open_archive(tmp_path, catalog=server.properties)
    for instance in (archive, other):
        assert await seqs(instance) == [0, 1, 2, 4, 5, 6, 7]
        assert await instance.check() == []
    await other.close()


async def test_l3_26_lost_answers_over_http(server, archive):
    """Whether a commit was applied before the answer was lost or not, its events are there once in the end."""
    for number, fault in enumerate(("500", "502", "504", "503", "429", "drop")):
        try:
            await lose_answers(server, archive, fault, 4 + 8 * number)
        except BaseException as error:
            error.add_note(f"the fault was {fault}")
            raise
    assert await archive.check() == []


async def lose_answers(server, archive, fault, start):
    """Eight events from `start` on, of which the archive has those before; each request meets the fault once."""
    server.script = [f"applied {fault}"]
    assert await same_day(archive, start, start + 4) is True
    server.script = [fault]
    with pytest.raises(ArchiveUnavailable, match="did not accept a commit"):
        await same_day(archive, start + 4, start + 8)
    assert await archive.watermark() == start + 4
    assert await same_day(archive, start + 4, start + 8) is True
    server.script = [f"applied {fault}"]
    assert (await archive.compact()).files_before == 3
    assert await seqs(archive) == list(range(start + 8))


async def test_l3_27_conflict_storm_over_http(server, archive):
    """Retries after a 409 end after a bounded number of requests; a 409 for an applied commit is recognized."""
    before = server.asked
    server.script = ["409"] * 100
    with pytest.raises(ArchiveConflict, match="20 times in a row"):
        await same_day(archive, 4, 8)
    assert server.asked - before < 50
    server.script = ["applied 409"]
    assert await same_day(archive, 4, 8) is True
    assert await seqs(archive) == list(range(8))


async def test_l3_28_a_server_that_refuses_everything(server, archive):
    """While a server refuses or fails every request, every call raises; afterwards the same archive works again."""
    for number, status in enumerate((401, 403, 419, 429, 500, 503)):
        start = 4 + 4 * number
        server.status = status
        for call in (
            archive.watermark,
            archive.compact,
            archive.snapshots,
            partial(same_day, archive, start, start + 4),
        ):
            with pytest.raises(ArchiveUnavailable):
                pytest.fail(f"{status} was no error of {call}: {await call()}")
        (problem,) = await archive.check()
        assert "cannot be read" in problem, status
        server.status = None
        assert await same_day(archive, start, start + 4) is True, status
        assert await seqs(archive) == list(range(start + 4)), status


async def test_l3_28_an_expired_token(server, tmp_path):
    """An expired token is ArchiveUnavailable; opened with the new one, nothing is missing."""
    server.token = "old"  # noqa: S105 - the test's own
    archive = open_archive(tmp_path, catalog=server.properties | {"token": "old"})
    await same_day(archive, 0, 4)
    server.token = "new"  # noqa: S105 - the same
    with pytest.raises(ArchiveUnavailable, match="the token has expired"):
        await same_day(archive, 4, 8)
    await archive.close()
    archive = open_archive(tmp_path, catalog=server.properties | {"token": "new"})
    assert await same_day(archive, 4, 8) is True
    assert await seqs(archive) == list(range(8))
    await archive.close()
