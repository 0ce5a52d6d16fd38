"""anomalies against plain Python that reads like its definition."""

from __future__ import annotations

import statistics
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_periods import EPOCH, period, periods
from report_cases import happened, stages

from lakebed import Analytics, ManualClock, QueryRefused
from lakebed.clock import to_us

HOUR, DAY = 3600, 86_400
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def plain_anomalies(events, name, *, grain, days, history, sensitivity, start, end, tz="UTC"):
    """Each hour or day beside the same wall-clock time of the seasons before it."""
    counts = Counter(period(e.us, grain, tz) for e in events if (name is None or e.event == name) and e.us < to_us(end))
    if not counts:
        return []
    first, rows = min(counts), []
    last = period(to_us(end), grain, tz)
    for at in periods(period(to_us(start), grain, tz), last, grain):
        if at == last:
            break
        past = []
        for k in range(1, history + 1):
            if grain == "day":
                then = at - timedelta(days * k)
            else:
                local = at.astimezone(ZoneInfo(tz)).replace(tzinfo=None) - timedelta(days * k)
                then = local.replace(tzinfo=ZoneInfo(tz)).astimezone(UTC)
                then = period(round((then - EPOCH) / timedelta(microseconds=1)), "hour")
            if then >= first:
                past.append(counts[then])
        value = counts[at]
        if len(past) < 3:
            rows.append((at, value, None, None, None, False))
            continue
        expected = statistics.median(past)
        spread = 1.4826 * statistics.median(abs(one - expected) for one in past)
        width = sensitivity * max(spread, expected**0.5, 1)
        low, high = max(0, expected - width), expected + width
        rows.append((at, value, expected, low, high, not low <= value <= high))
    return rows


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hours=st.lists(st.integers(0, 30 * 24), min_size=1, max_size=60),
    grain=st.sampled_from(["hour", "day"]),
    seasonality=st.sampled_from(["day", "week"]),
    name=st.sampled_from([None, "buy"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    end=st.sampled_from(["2026-02-01T00:00Z", "2026-01-20T10:20Z"]),
)
async def test_in_every_state_it_is_what_plain_python_says(tmp_path_factory, hours, grain, seasonality, name, tz, end):
    """By the rollup of hours and from raw events alike, in every state of an object."""
    events = [happened("buy" if at % 3 else "visit", "ann", at * HOUR + at % 7) for at in hours]
    asked = {"grain": grain, "seasonality": seasonality, "history": 4, "sensitivity": 1.5, "tz": tz}
    start = datetime(2026, 1, 12, tzinfo=UTC)
    async for stage in stages(tmp_path_factory.mktemp("odd"), events, untrusted=()):
        expected = plain_anomalies(
            stage.events,
            name,
            grain=grain,
            days=7 if seasonality == "week" else 1,
            history=4,
            sensitivity=1.5,
            start=start,
            end=datetime.fromisoformat(end),
            tz=tz,
        )
        for where in (None, "true"):
            found = await stage.ask("anomalies", event=name, start=start, end=end, where=where, **asked)
            assert [(row.time, row.value, row.is_anomaly) for row in found] == [(*row[:2], row[5]) for row in expected]
            bands = [(row.expected, row.low, row.high) for row in found]
            assert bands == [pytest.approx(row[2:5], abs=1e-9) for row in expected], stage.name


async def test_a_spike_and_a_drop_are_told_in_words(tmp_path):
    """Six quiet weeks, then a Tuesday at 14:00 with five times the visits, and a Wednesday with none."""
    start = MONDAY
    now = start + timedelta(weeks=7)
    events = []
    for hour in range(7 * 168):
        at = start + timedelta(hours=hour)
        many = 20 + hour % 3
        if hour // 168 == 6 and (at.weekday(), at.hour) == (1, 14):
            many = 105
        if hour // 168 == 6 and (at.weekday(), at.hour) == (2, 9):
            many = 0
        events += [{"event": "Seen", "userId": "a", "timestamp": at.isoformat()}] * many
    async with Analytics("shop", root=tmp_path, clock=ManualClock(now), headroom_bytes=0) as shop:
        await shop.batch(events)
        found = await shop.anomalies("Seen")
        assert (len(found), found.tiers, found.report) == (168, ("L2",), "anomalies")
        odd = [row for row in found if row.is_anomaly]
        assert [row.reason for row in odd] == [
            "105 is 4.8 x the usual 22 for Tuesdays at 14:00; the band is 7.929 to 36.07",
            "0 is 0.0 x the usual 20 for Wednesdays at 09:00; the band is 6.584 to 33.42",
        ]
        early = await shop.anomalies("Seen", start="2026-01-12", end="2026-01-13")
        assert {row.reason for row in early} == {"not enough history: 1 of 8"}
        assert not any(row.is_anomaly for row in early)
        assert len(await shop.anomalies("Never")) == 0
        assert await shop.check() == []


async def test_an_hour_that_is_not_over_makes_no_rows(tmp_path):
    """Where all events lie in the part of an hour before `end`, raw events and the rollup both judge nothing."""
    events = [happened("buy", "ann", at) for at in (7 * DAY, 7 * DAY + 60)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        for where in (None, "true"):
            assert len(await stage.ask("anomalies", end="2026-01-12T00:20Z", where=where)) == 0
            assert len(await stage.ask("anomalies", end="2026-01-12T01:00Z", where=where)) == 168


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"grain": "week"}, "hour, day"),
        ({"seasonality": "year"}, "week or day"),
        ({"history": 2}, "3 to 100"),
        ({"sensitivity": 0}, "usual is 3"),
        ({"start": "2000-01-01"}, "shorter range"),
    ],
)
async def test_what_cannot_be_says_what_can(tmp_path, arguments, said):
    """Each wrong argument is refused with the right ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=said):
            await shop.anomalies(**arguments)
