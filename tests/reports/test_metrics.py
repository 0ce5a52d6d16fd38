from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import from_us, to_us
from lakebed.errors import InvalidAsOf, QueryError, QueryRefused, QueryTooLarge
from tests.query.parts import START, Parts, opened, us

pytestmark = pytest.mark.integration

DAY = 86_400_000_000
HOUR = DAY // 24
FIRST = us("2026-02-01")


def buy(at: int, person: str | None = "a", amount: float = 1.0, event: str = "Buy", **properties) -> dict:
    return {"event": event, "user_id": person, "timestamp": at, "properties": {"amount": amount, **properties}}


# A plain model of every answer.


def model_active(model: list[dict], first: date, last: date, width: int) -> list[tuple]:
    rows = []
    for at in range((last - first).days + 1):
        day = first + timedelta(days=at)
        seen = [e for e in model if day - timedelta(days=width) < from_us(e["timestamp"]).date() <= day]
        rows.append((day, len({e["person"] for e in seen} - {None}), len(seen)))
    return rows


def floor(us_: int, grain: str) -> datetime:
    moment = from_us(us_)
    if grain == "month":
        return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if grain == "week":
        return floor(us_ - moment.weekday() * DAY, "day")
    size = {"minute": HOUR // 60, "hour": HOUR, "day": DAY}[grain]
    return from_us(us_ // size * size)


def buckets(start: int, end: int, grain: str) -> list[datetime]:
    result, at = [], start
    while at < end:
        bucket = floor(at, grain)
        result.append(bucket)
        size = {"minute": HOUR // 60, "hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 31 * DAY}[grain]
        at = to_us(floor(to_us(bucket) + size, grain))
    return result


MEASURES: dict[str, Callable[[list[dict]], object]] = {
    "count": len,
    "people": lambda es: len({e["person"] for e in es} - {None}),
    "sum(amount)": lambda es: math.fsum(e["properties"]["amount"] for e in es),
    "avg(x)": lambda es: statistics.fmean(xs) if (xs := _xs(es)) else None,
    "min(x)": lambda es: min(_xs(es), default=None),
    "max(amount)": lambda es: max(e["properties"]["amount"] for e in es),
    'distinct("x y")': lambda es: len({e["properties"]["x y"] for e in es if "x y" in e["properties"]}),
    "quantile(amount, 0.5)": lambda es: statistics.median(e["properties"]["amount"] for e in es),
}


def _xs(events: list[dict]) -> list[float]:
    return [e["properties"]["x"] for e in events if "x" in e["properties"]]


def model_series(model: list[dict], start: int, end: int, grain: str, by: str | None, measure: str) -> list[tuple]:
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for e in model:
        if start <= e["timestamp"] < end:
            keys = () if by is None else (e["event"] if by == "event" else e["properties"].get(by),)
            groups[floor(e["timestamp"], grain), *keys].append(e)
    if by is None and measure in ("count", "people", 'distinct("x y")'):
        return [(bucket, MEASURES[measure](groups.get((bucket,), []))) for bucket in buckets(start, end, grain)]
    ordered = sorted(groups, key=lambda key: (key[0], *((part is None, part) for part in key[1:])))
    return [(key[0], MEASURES[measure](groups[key]), *key[1:]) for key in ordered]


def same(result: list[tuple], expected: list[tuple]) -> bool:
    return len(result) == len(expected) and all(
        len(row) == len(expected_row)
        and all(
            a == b or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-12))
            for a, b in zip(row, expected_row, strict=True)
        )
        for row, expected_row in zip(result, expected, strict=True)
    )


times = st.one_of(
    st.integers(0, 46 * 24).map(lambda hour: FIRST + hour * HOUR),
    st.integers(0, 46 * DAY).map(lambda at: FIRST + at),
    st.sampled_from([FIRST + 30 * DAY - 1, FIRST + 30 * DAY, FIRST + 30 * DAY + HOUR + 1]),
)
events = st.builds(
    lambda at, person, amount, event, extra: buy(at, person, amount, event, **extra),
    times,
    st.sampled_from(["a", "b", "c", None]),
    st.sampled_from([0.1, 0.2, 2.5, -1.0]),
    st.sampled_from(["Buy", "View"]),
    st.dictionaries(st.sampled_from(["x", "x y"]), st.integers(-3, 3)),
)
questions = st.tuples(
    times, times, st.sampled_from(["hour", "day", "week", "month"]), st.sampled_from([None, "event", "x y"]),
    st.sampled_from([None, "Buy"]), st.sampled_from(["count", "count", *MEASURES]), st.booleans(),
)  # fmt: skip


async def check_series(parts: Parts, model: list[dict], question, as_of: datetime | None) -> None:
    first_us, second_us, grain, by, event, measure, filtered = question
    start, end = min(first_us, second_us), max(first_us, second_us)
    result = await parts.metrics.timeseries(
        event,
        start=from_us(start),
        end=from_us(end),
        grain=grain,
        by=by,
        measure=measure,
        where="amount > 0" if filtered else None,
        as_of=as_of,
    )
    selected = [e for e in model if event in (None, e["event"]) and (not filtered or e["properties"]["amount"] > 0)]
    if by == "x y":  # as text
        selected = [
            e | {"properties": {k: str(v) if k == by else v for k, v in e["properties"].items()}} for e in selected
        ]
    expected = model_series(selected, start, end, grain, by, measure)
    assert same([tuple(row) for row in result], expected), (question, result, expected)
    assert result.columns == (("time", "value") if by is None else ("time", "value", by))


@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.lists(events, min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(questions, min_size=6, max_size=10),
    st.data(),
)
def test_metrics_equal_a_plain_model(batches, options, data):
    """Actives and series equal those of a plain list, now and as of any instant, wherever the events lie."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with opened(Path(directory)) as parts:
                for batch in batches:
                    await parts.track(batch)
                    parts.clock.advance(3)
                    step = data.draw(st.sampled_from(["none", "seal", "archive"]))
                    if step == "archive":
                        await parts.to_archive(data.draw(st.integers(0, parts.pipeline.next_seq)))
                    elif step == "seal":
                        await parts.seal()
                past = START + timedelta(seconds=data.draw(st.integers(0, 3 * len(batches))))
                known = [e for e in parts.model if e["received_at"] <= to_us(past)]
                for as_of, model in ((None, parts.model), (past, known)):
                    for question in options:
                        await check_series(parts, model, question, as_of)
                    await check_active(parts, model, as_of)

    asyncio.run(run())


async def check_active(parts: Parts, model: list[dict], as_of: datetime | None) -> None:
    first, last = date(2026, 2, 25), date(2026, 3, 4)
    for width, ask in ((1, parts.metrics.dau), (7, parts.metrics.wau), (30, parts.metrics.mau)):
        result = await ask(start=first, end=last, as_of=as_of)
        assert [tuple(row) for row in result] == model_active(model, first, last, width)
        assert result.tiers == ("L2",) if as_of is None else "L2" not in result.tiers


@pytest.fixture
async def parts(tmp_path):
    async with opened(tmp_path) as made:
        today = to_us(START)
        await made.track([buy(today - HOUR), buy(today - DAY, "b"), buy(today - 6 * DAY, None), buy(today - 7 * DAY)])
        yield made


async def test_dau_has_the_last_seven_days(parts):
    """The last day is today; a day without events has zeros."""
    result = await parts.metrics.dau()
    assert result.columns == ("date", "dau", "events")
    assert [(row.date.day, row.dau, row.events) for row in result] == [
        (14, 0, 1), (15, 0, 0), (16, 0, 0), (17, 0, 0), (18, 0, 0), (19, 1, 1), (20, 1, 1),
    ]  # fmt: skip
    assert (result.tiers, result.seq) == (("L2",), (0, 4))
    assert (await parts.metrics.dau(days=1))[0].dau == 1
    assert len(await parts.metrics.dau(start="2026-03-01")) == 20
    assert [row.date for row in await parts.metrics.dau(2, end=date(2026, 3, 2))] == [
        date(2026, 3, 1),
        date(2026, 3, 2),
    ]


async def test_dau_as_of_a_moment_ends_on_its_day(parts):
    """The last day is that of `as_of`, and only events received by then count."""
    parts.clock.advance(3 * 86400)
    await parts.track([buy(to_us(START), "late")])
    assert [row.dau for row in await parts.metrics.dau(2, as_of=START + timedelta(days=1))] == [1, 0]
    assert [row.dau for row in await parts.metrics.dau(1, end=START)] == [2]
    with pytest.raises(InvalidAsOf):
        await parts.metrics.dau(as_of="2027-01-01")


async def test_invalid_days_are_refused(parts):
    """Days that cannot be read, are out of order or too many are refused, with a hint."""
    for days, options in [(0, {}), ("7", {}), (10**9, {}), (7, {"start": "x"}), (7, {"end": datetime(2026, 1, 1)})]:  # noqa: DTZ001
        with pytest.raises(QueryRefused):
            await parts.metrics.dau(days, **options)
    with pytest.raises(QueryRefused, match="an earlier start, or a later end"):
        await parts.metrics.dau(start="2026-03-02", end="2026-03-01")


async def test_invalid_arguments_of_timeseries_are_refused(parts):
    """A `where` that is not SQL is an error with DuckDB's message."""
    whole = {"start": "2026-03-01", "end": "2026-03-02"}
    for options in (
        {"grain": "year"},
        {"by": "time"},
        {"by": ["event", "Event"]},
        {"by": [""]},
        {"measure": "median(x)"},
        {"measure": "sum()"},
        {"measure": "sum(event)"},
        {"measure": "quantile(x)"},
        {"measure": "quantile(x, 2)"},
        {"measure": 3},
        {"start": "tomorrow"},
        {"end": "2026-02-28"},
        {"where": "true; SELECT 1"},
        {"where": "event IN (SELECT * FROM query('SELECT 1'))"},
    ):
        with pytest.raises(QueryRefused):
            await parts.metrics.timeseries(**(whole | options))
    for where in ("nope > 1", "true) OR (true", "event ="):
        with pytest.raises(QueryError):
            await parts.metrics.timeseries(**whole, where=where)
    with pytest.raises(QueryTooLarge, match="coarser grain"):
        await parts.metrics.timeseries(start="1900-01-01", end="2026-01-01", grain="minute")


async def test_series_uses_the_rollup_for_whole_hours(parts):
    """Whole hours come from L2, ragged edges from raw events, and only the edges' files are opened."""
    for day in range(3):
        await parts.track([buy(us(f"2026-03-0{day + 1}") + hour * HOUR + HOUR // 2) for hour in range(24)])
    await parts.to_archive()
    aligned = await parts.metrics.timeseries(start="2026-03-01", end="2026-03-03", grain="day")
    assert [row.value for row in aligned] == [24, 24]
    assert aligned.tiers == ("L2",)
    ragged = await parts.metrics.timeseries(start="2026-03-01T00:40", end="2026-03-03T00:40", grain="day")
    assert [row.value for row in ragged] == [23, 24, 1]
    assert ragged.tiers == ("L2", "L3")
    assert sorted(path.split("timestamp_day=")[1][:10] for path in ragged.files) == ["2026-03-01", "2026-03-03"]
    assert (await parts.metrics.timeseries(start="2026-03-01", end="2026-03-01")).rows == []


async def test_minutes_come_from_raw_events(parts):
    """Minutes without events have rows, too."""
    result = await parts.metrics.timeseries(
        start=START - timedelta(hours=1, minutes=1), end=START - timedelta(minutes=58), grain="minute"
    )
    assert [row.value for row in result] == [0, 1, 0]
    assert result[1].time == START - timedelta(hours=1)
    assert result.tiers == ("L1",)


async def test_where_may_have_a_subquery(parts):
    """The subquery reads all events, not only those in the range of the series."""
    await parts.track([buy(us("2025-01-01"), "old"), buy(us("2026-03-10"), "old"), buy(us("2026-03-10"), "new")])
    await parts.to_archive()
    where = "person_id IN (SELECT person_id FROM events WHERE timestamp < '2025-06-01') -- old ones"
    result = await parts.metrics.timeseries(start="2026-03-10", end="2026-03-11", grain="day", where=where)
    assert [row.value for row in result] == [1]
    where = "person_id IN (SELECT person_id FROM people WHERE first_seen < '2025-06-01')"
    result = await parts.metrics.timeseries(start="2026-03-10", end="2026-03-11", grain="day", where=where)
    assert [row.value for row in result] == [1]


async def test_names_beyond_the_limit_of_the_rollup_are_counted(tmp_path):
    """Names that the rollup puts into one group are counted separately, from raw events."""
    async with opened(tmp_path, rollup_max_groups=2) as parts:
        await parts.track([buy(us("2026-03-10"), event=f"e{n % 4}") for n in range(10)])
        range_ = {"start": "2026-03-10", "end": "2026-03-11", "grain": "day"}
        by_name = await parts.metrics.timeseries(**range_, by="event")
        assert [(row.event, row.value) for row in by_name] == [("e0", 3), ("e1", 3), ("e2", 2), ("e3", 2)]
        assert [row.value for row in await parts.metrics.timeseries("e3", **range_)] == [2]
        total = await parts.metrics.timeseries(**range_)
        assert ([row.value for row in total], total.tiers) == ([10], ("L2",))


async def test_by_takes_several_columns_and_properties(parts):
    """`by` may combine columns, promoted columns and properties, in its order."""
    await parts.track([buy(us("2026-03-10"), p, 2.0, plan=plan) for p, plan in [("a", "x"), ("a", "y"), ("b", "x")]])
    result = await parts.metrics.timeseries(
        start="2026-03-10", end="2026-03-11", grain="day", by=["person_id", "plan"], measure="sum(amount)"
    )
    assert result.columns == ("time", "value", "person_id", "plan")
    assert [tuple(row)[1:] for row in result] == [(2.0, "a", "x"), (2.0, "a", "y"), (2.0, "b", "x")]


async def test_midnight_belongs_to_the_new_day(parts):
    """The last microsecond of a day and the first of the next are of different days, in UTC."""
    at = us("2026-03-11")
    await parts.track([buy(at - 1, "x"), buy(at, "y")])
    assert [row.dau for row in await parts.metrics.dau(start="2026-03-10", end="2026-03-11")] == [1, 1]
    result = await parts.metrics.timeseries(start=datetime(2026, 3, 10, tzinfo=UTC), end="2026-03-12", grain="day")
    assert [row.value for row in result] == [1, 1]


@pytest.mark.parametrize("grain", ["minute", "hour", "day", "week", "month"])
async def test_events_before_1970_lie_in_the_right_bucket(tmp_path, grain):
    """An event from before 1970 is in the bucket of its date, like any other."""
    async with opened(tmp_path) as parts:
        times = [
            us(text)
            for text in ("1969-12-29T00:00", "1969-12-31T23:59:59.999999", "1970-01-01T00:00", "2026-03-20T11:30")
        ]
        await parts.track([{"event": "Visit", "timestamp": at} for at in times])
        for where in (None, "true"):  # from the rollup, and from the events
            options = {"start": "1969-12-01", "end": "2026-04-01", "grain": grain, "by": "event", "where": where}
            result = await parts.metrics.timeseries(**options)
            truth = await parts.queries.run(
                f"SELECT date_trunc('{grain}', timestamp) AS time, count(*) AS n FROM events GROUP BY 1 ORDER BY 1"
            )
            assert [(row.time, row.value) for row in result] == [(row.time, row.n) for row in truth]
