"""anomalies against plain Python that reads like its definition."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, ManualClock, QueryRefused
from lakebed.clock import to_us
from tests.reports.plain_periods import EPOCH, period, periods
from tests.reports.questions import STATES
from tests.reports.report_cases import PAIRS, happened, identified, stages

pytestmark = pytest.mark.integration

HOUR, DAY = 3600, 86_400
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def numbers(events):
    return [float(event.properties["amount"]) for event in events if event.properties.get("amount") is not None]


MEASURES = {
    "count": len,
    "people": lambda result: len({event.person for event in result} - {None}),
    "distinct(amount)": lambda result: len(set(numbers(result))),
    "sum(amount)": lambda result: math.fsum(numbers(result)),
    "avg(amount)": lambda result: statistics.fmean(ns) if (ns := numbers(result)) else None,
}


COUNTS = ("count", "people", "distinct(amount)")


def squares(measure, events):
    """The squares of the numbers that a value sums up, 1 for each in a count; none for a value that is no sum."""
    if measure == "avg(amount)":
        return []
    return [n * n for n in numbers(events)] if measure == "sum(amount)" else [1] * MEASURES[measure](events)


def season_before(at, k, grain, days, tz):
    """The period k seasons of `days` days before, at the same wall-clock time; without seasons, k periods before."""
    if grain == "day":
        return at - timedelta((days or 1) * k)
    if days is None:
        return at - timedelta(hours=k)
    local = at.astimezone(ZoneInfo(tz)).replace(tzinfo=None) - timedelta(days * k)
    then = local.replace(tzinfo=ZoneInfo(tz)).astimezone(UTC)
    return period(round((then - EPOCH) / timedelta(microseconds=1)), "hour")


def plain_anomalies(events, name, *, measure, grain, season, history, sensitivity, start, end, tz="UTC"):
    """Compare each period with the same wall-clock time in earlier seasons, or with the periods just before it."""
    result = defaultdict(list)
    for e in events:
        if (name is None or e.event == name) and e.us < to_us(end):
            result[period(e.us, grain, tz)].append(e)
    if not result:
        return []
    first, rows = min(result), []
    days = {"week": 7, "day": 1}.get(season)
    means = [statistics.fmean(figures) for events in result.values() if (figures := squares(measure, events))]
    typical = statistics.median(means) if means else measure in COUNTS
    last = period(to_us(end), grain, tz)
    for at in periods(period(to_us(start), grain, tz), last, grain):
        if at == last:
            break
        before = [season_before(at, k, grain, days, tz) for k in range(1, history + 1)]
        past = [result.get(then, []) for then in before if then >= first]
        value = MEASURES[measure](result.get(at, []))
        past = [events for events in past if MEASURES[measure](events) is not None]
        if len(past) < 3:
            rows.append((at, value, None, None, None, False))
            continue
        values = [MEASURES[measure](events) for events in past]
        expected = statistics.median(values)
        spread = 1.4826 * statistics.median(abs(value - expected) for value in values)
        usual = statistics.median(sum(squares(measure, events)) for events in past)
        width = sensitivity * max(spread, max(usual, typical) ** 0.5)
        low, high = expected - width, expected + width
        low = max(0, low) if measure in COUNTS else low
        rows.append((at, value, expected, low, high, value is not None and not low <= value <= high))
    return rows


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hours=st.lists(st.integers(0, 30 * 24), min_size=1, max_size=60),
    grain=st.sampled_from(["hour", "day"]),
    season=st.sampled_from(["day", "week", "none"]),
    name=st.sampled_from([None, "buy"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    end=st.sampled_from(["2026-02-01T00:00Z", "2026-01-20T10:20Z"]),
    states=st.sampled_from(PAIRS),
)
async def test_anomalies_equal_plain_python_in_any_state(tmp_path_factory, hours, grain, season, name, tz, end, states):
    """The rollup of hours and raw events give the same rows, in any state of an object."""
    events = [happened("buy" if at % 3 else "visit", "ann", at * HOUR + at % 7) for at in hours]
    options = {"grain": grain, "history": 4, "sensitivity": 1.5, "tz": tz}
    async for stage in stages(tmp_path_factory.mktemp("odd"), events, only=states, untrusted=()):
        for where in (None, "true"):
            await compare(stage, name, season=season, end=datetime.fromisoformat(end), where=where, **options)


async def compare(stage, name, *, measure="count", season, end, where=None, **options):
    """The report and plain Python give the same rows, and the same bands except for rounding."""
    start = datetime(2026, 1, 12, tzinfo=UTC)
    expected = plain_anomalies(stage.events, name, measure=measure, season=season, start=start, end=end, **options)
    arguments = {"measure": measure, "seasonality": season, "start": start, "end": end, "where": where, **options}
    result = await stage.shop.anomalies(name, **arguments, as_of=stage.as_of)
    assert [(row.time, row.is_anomaly) for row in result] == [(row[0], row[5]) for row in expected]
    bands = [(row.value, row.expected, row.low, row.high) for row in result]
    assert bands == [pytest.approx(row[1:5], abs=1e-9) for row in expected], (stage.name, measure)
    return result


async def test_each_measure_equals_plain_python(tmp_path):
    """Sums, means, people and distinct values, with seasons and without; from rollups where they have them."""
    rng = random.Random(3)
    people, amounts = ("ann", "bob", "?p1", None), (None, 1, 2.5, -4, 0.1)
    hours = sorted(rng.randrange(20 * 24) for _ in range(120))
    events = [
        happened(rng.choice(["buy", "visit"]), rng.choice(people), at * HOUR, {"amount": rng.choice(amounts)})
        for at in hours
    ]
    events[60:60] = [identified("bob", "?p1", 0)]
    options = {"history": 4, "sensitivity": 1.5, "end": datetime(2026, 1, 24, 10, 20, tzinfo=UTC)}
    questions = [
        (None, {"measure": "people", "grain": "day", "season": "none"}),
        ("buy", {"measure": "people", "grain": "day", "season": "day"}),
        ("buy", {"measure": "sum(amount)", "grain": "hour", "season": "none", "tz": "Asia/Kathmandu"}),
        (None, {"measure": "avg(amount)", "grain": "day", "season": "day", "tz": "Europe/Berlin"}),
        ("buy", {"measure": "distinct(amount)", "grain": "day", "season": "none"}),
    ]
    async for stage in stages(tmp_path, events, merges=[("ann", "bob")], only=STATES):
        for at, (name, question) in enumerate(questions):
            result = await compare(stage, name, **question, **options)
            assert ("L2" in result.tiers) == (at == 0 and stage.as_of is None)
            if stage.name == "merged":
                assert any(row.expected for row in result), question


async def test_a_spike_and_a_drop_have_reasons_in_words(tmp_path):
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
        result = await shop.anomalies("Seen")
        assert (len(result), result.tiers, result.report) == (168, ("L2",), "anomalies")
        odd = [row for row in result if row.is_anomaly]
        assert [row.reason for row in odd] == [
            "105 is 4.8 x the usual 22 for Tuesdays at 14:00; the band is 7.929 to 36.07",
            "0 is 0.0 x the usual 20 for Wednesdays at 09:00; the band is 6.584 to 33.42",
        ]
        early = await shop.anomalies("Seen", start="2026-01-12", end="2026-01-13")
        assert {row.reason for row in early} == {"not enough history: 1 of 8"}
        assert not any(row.is_anomaly for row in early)
        assert len(await shop.anomalies("Never")) == 0
        assert await shop.check() == []


async def test_an_hour_that_is_not_over_has_no_row(tmp_path):
    """If all events lie in the part of an hour before `end`, raw events and the rollup give no row."""
    events = [happened("buy", "ann", at) for at in (7 * DAY, 7 * DAY + 60)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        for where in (None, "true"):
            assert len(await stage.ask("anomalies", end="2026-01-12T00:20Z", where=where)) == 0
            assert len(await stage.ask("anomalies", end="2026-01-12T01:00Z", where=where)) == 168


async def test_sums_means_and_people_are_compared_with_the_days_before(tmp_path):
    """Twenty sales of ten a day, then sales of a hundred, then none. People by day come from a rollup."""
    amounts = [10] * 8 + [100]
    events = [
        {
            "event": "Sold",
            "userId": f"u{n}",
            "timestamp": (MONDAY + timedelta(days=day, hours=n)).isoformat(),
            "properties": {"amount": amount},
        }
        for day, amount in enumerate(amounts)
        for n in range(20)
    ]
    options = {"grain": "day", "seasonality": "none", "history": 5, "start": MONDAY + timedelta(days=8)}
    async with Analytics("shop", root=tmp_path, clock=ManualClock(MONDAY + timedelta(10)), headroom_bytes=0) as shop:
        await shop.batch(events)
        result = await shop.anomalies(measure="people", **options)
        assert (result.tiers, [row.value for row in result]) == (("L2",), [20, 0])
        gone = "0 is 0.0 x the usual 20 in the days before; the band is 6.584 to 33.42"
        assert [row.reason for row in result] == ["", gone]
        assert (await shop.anomalies("Sold", measure="people", **options)).tiers == ("L1",)
        result = await shop.anomalies("Sold", measure="sum(amount)", **options)
        assert [row.reason for row in result] == [
            "2,000 is 10.0 x the usual 200 in the days before; the band is 65.84 to 334.2",
            "0 is 0.0 x the usual 200 in the days before; the band is 65.84 to 334.2",
        ]
        other = await shop.report_untrusted("anomalies", {"event": "Sold", "measure": "sum(amount)", **options})
        assert other.rows == result.rows
        result = await shop.anomalies("Sold", measure="avg(amount)", **options)
        assert [row.reason for row in result] == [
            "100 is 10.0 x the usual 10 in the days before; the band is 10 to 10",
            "no value",
        ]
        assert "anomaly" in result.plot().svg()
        hours = await shop.anomalies("Sold", measure="sum(amount)", **options | {"grain": "hour", "history": 3})
        assert hours[0].reason == "100, where 0 is usual in the hours before; the band is -30 to 30"
        assert await shop.check() == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"grain": "week"}, "hour, day"),
        ({"seasonality": "year"}, "week, day, none"),
        ({"measure": "mode(x)"}, "Use count"),
        ({"measure": "max(timestamp)"}, "is not a numeric column"),
        ({"history": 2}, "3 to 100"),
        ({"sensitivity": 0}, "usual is 3"),
        ({"start": "2000-01-01"}, "shorter range"),
    ],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.anomalies(**arguments)
