"""The contents of each tier, also while one of them does not answer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lakebed import Analytics, Rollup
from lakebed.monitoring.tier_status import tier_status


class Shop(Analytics):
    plans = Rollup("plans", by=["plan"], measures={"n": "count()"}, grain="day")


@pytest.fixture
async def shop(tmp_path):
    async with Shop("shop", root=tmp_path, headroom_bytes=0, segment_events=10) as shop:
        yield shop
        assert await shop.check() == []


async def test_each_consumer_has_its_lag(shop):
    """Every rollup and the archive, furthest behind first, before any of them has run, between, and after."""
    await shop.batch([{"event": "A", "properties": {"plan": "pro"}}] * 25)
    status = await shop.tiers()
    behind = ["archive", "identity", "rollup:daily_metrics", "rollup:hourly_events", "rollup:plans"]
    assert [(consumer.name, consumer.next_seq, consumer.lag) for consumer in status.consumers] == [
        (name, 0, 25) for name in behind
    ]
    await shop.dau()
    status = await shop.tiers()
    assert {consumer.name: consumer.lag for consumer in status.consumers}["rollup:daily_metrics"] == 0
    assert (status.consumers[0].name, status.consumers[0].lag) == ("archive", 25)
    await shop.rollup()
    await shop.archive()
    status = await shop.tiers()
    assert {consumer.lag for consumer in status.consumers} == {0}
    assert (status.archive.rows, status.archive.files, status.archive.watermark) == (25, 1, 25)


async def test_the_log_has_sealed_segments_and_a_tail(shop):
    """Sealed segments and the tail together are what the log holds."""
    await shop.batch([{"event": "A"}] * 25)
    await shop.rollup()
    await shop._components.pipeline.seal()
    await shop.track("B")
    log = (await shop.tiers()).log
    assert (log.first_seq, log.next_seq, log.tail_events, log.pending) == (0, 26, 1, 0)
    files = list((shop.directory / "log").glob("*.parquet"))
    assert log.segments == len(files) > 0
    assert log.sealed_bytes == sum(path.stat().st_size for path in files)


async def test_a_busy_archive_hides_no_other_tier(shop):
    """Figures that would take long are absent; the watermark that the object knows and the other tiers are there."""
    await shop.batch([{"event": "A"}] * 25)
    await shop.archive()
    release = threading.Event()
    work = asyncio.ensure_future(shop._components.archive._run(lambda _: release.wait(20)))
    status = await tier_status(shop._components.monitor._parts, archive_timeout_s=0.01)
    assert (status.archive.trouble, status.archive.watermark) == ("busy", 25)
    assert status.archive.snapshots is status.archive.rows is None
    assert status.log.next_seq == 25
    release.set()
    assert await work
    assert (await tier_status(shop._components.monitor._parts, archive_timeout_s=20)).archive.rows == 25


async def test_an_unavailable_archive_hides_no_other_tier(tmp_path):
    """A catalog that does not answer is reported as unavailable, without its address."""
    async with Analytics("shop", root=tmp_path) as shop:
        await shop.track("A")
    catalog = {"type": "rest", "uri": "http://127.0.0.1:9/secret"}
    async with Analytics("shop", root=tmp_path, catalog=catalog) as shop:
        status = await shop.tiers()
        assert (status.archive.trouble, status.archive.files, status.log.next_seq) == ("unavailable", None, 1)
        assert "secret" not in repr(status)
