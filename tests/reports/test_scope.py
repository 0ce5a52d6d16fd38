"""The range of a report at the ends of time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lakebed import Analytics, ManualClock, QueryRefused
from tests.reports.report_samples import COHORTS, EVENTS, SAMPLES


@pytest.fixture
async def shop(tmp_path):
    clock = ManualClock(datetime(2026, 2, 1, tzinfo=UTC))
    async with Analytics("shop", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        await shop.batch(EVENTS)
        for name, definition in COHORTS.items():
            await shop.save_cohort(name, definition)
        yield shop
        assert await shop.check() == []


@pytest.mark.parametrize("report", ["sessions", "paths"])
async def test_a_start_in_the_year_1_is_no_bound(shop, report):
    """Reports that read events before `start` read none before the year 1."""
    question = SAMPLES[report] | {"by": "plan"}
    since = await getattr(shop, report)(**question, start="0001-01-01")
    assert since.rows == (await getattr(shop, report)(**question)).rows


async def test_an_end_in_the_year_1_is_refused(shop):
    """An end before which there is no time is refused by every report with an `end`."""
    for report, question in SAMPLES.items():
        if not report.startswith("cohort_"):
            with pytest.raises(QueryRefused, match="the earliest time there is"):
                await getattr(shop, report)(**question | {"start": None, "end": "0001-01-01"})
    assert len(await shop.anomalies(end="0001-01-02")) == 0
