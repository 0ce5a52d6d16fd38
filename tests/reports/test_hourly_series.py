from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.query.parts import opened, us

pytestmark = pytest.mark.integration  # an object in each state

HOUR = 3_600_000_000
RANGES = [
    ("2026-02-27T05:00", "2026-03-03T07:00"),
    ("2026-03-01", "2026-03-02"),
    ("1969-12-28T23:00", "1970-01-06T01:00"),
]


@pytest.mark.parametrize("grain", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("event", [None, "Visit", "Nothing"])
async def test_whole_hours_and_raw_events_give_the_same_series(tmp_path, grain, event):
    """A series from whole hours has the buckets, values and types of one from raw events, also before 1970."""
    async with opened(tmp_path) as parts:
        for start, _ in RANGES:
            first = us(start)
            times = [first - 1, first, first + HOUR - 1, first + 9 * HOUR, first + 23 * HOUR, first + 24 * HOUR]
            names = ["Visit", "Buy", "Visit", "Visit", "Buy", "Visit"]
            await parts.track([{"event": name, "timestamp": at} for name, at in zip(names, times, strict=True)])
        for start, end in RANGES:
            question = {"start": start, "end": end, "grain": grain}
            result = await parts.metrics.timeseries(event, **question)
            truth = await parts.metrics.timeseries(event, **question, where="true")
            assert result.arrow().equals(truth.arrow().cast(result.arrow().schema))
            assert result.arrow().schema.equals(truth.arrow().schema)
            assert (result.tiers, result.seq) == (("L2",), (0, 18))


async def test_the_first_bucket_may_begin_before_the_range(tmp_path):
    """The first bucket of a range that begins on a Wednesday is the week of that Wednesday."""
    async with opened(tmp_path) as parts:
        await parts.track([{"event": "Visit", "timestamp": us("2026-03-04T10:30")}])
        result = await parts.metrics.timeseries(start="2026-03-04", end="2026-03-10", grain="week")
        assert [(row.time, row.value) for row in result] == [
            (datetime(2026, 3, 2, tzinfo=UTC), 1),
            (datetime(2026, 3, 9, tzinfo=UTC), 0),
        ]
