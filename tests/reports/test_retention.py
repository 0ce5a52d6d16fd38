"""retention, lifecycle and stickiness against plain Python that reads like their definitions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, QueryRefused
from lakebed.clock import from_us, to_us
from tests.reports.ecom import items
from tests.reports.plain_periods import distance, period, periods
from tests.reports.questions import STATES
from tests.reports.report_cases import PAIRS, START_US, happened, identified, seen, stages

pytestmark = pytest.mark.integration

PEOPLE = ["ann", "bob", "eve", "?p1", "?p2", None]
DAY = 86_400
NOW_US = START_US + 147 * DAY * 1_000_000  # 2026-06-01


@st.composite
def streams(draw):
    """Events of few people over some weeks, with equal times, repeats, and visitors who are identified later."""
    times = st.one_of(st.integers(0, 40 * DAY), st.sampled_from([0, DAY, 7 * DAY, 7 * DAY - 1, 13 * DAY, 33 * DAY]))
    event = st.builds(
        lambda event, who, at, plan: happened(event, who, at, {"plan": plan}),
        st.sampled_from(["visit", "buy"]),
        st.sampled_from(PEOPLE),
        times,
        st.sampled_from(["pro", "pro", "free", "team", None]),
    )
    identifies = st.builds(identified, st.sampled_from(["ann", "bob"]), st.sampled_from(["?p1", "?p2"]), times)
    return draw(st.lists(st.one_of(event, event, event, identifies), min_size=1, max_size=40))


def days_of(events, matches, calendar):
    """The periods in which each person has an event that matches."""
    result = defaultdict(set)
    for event in events:
        if event.person is not None and matches(event):
            result[event.person].add(period(event.us, **calendar))
    return result


def values_of(events, matches, calendar, by):
    """The value of each person's first event of each period that matches; None without `by`."""
    result = defaultdict(dict)
    for event in sorted(events, key=lambda event: (event.us, event.seq)):
        if event.person is not None and matches(event):
            value = event.properties.get(by) if by else None
            result[event.person].setdefault(period(event.us, **calendar), value)
    return result


def shown(people, top):
    """The label of each value in the rows, values with most people first."""
    ranked = sorted(people, key=lambda value: (-people[value], value is None, value or ""))
    return {value: value if at < top else "(other)" for at, value in enumerate(ranked)}


def named(name):
    return lambda event: name is None or event.event == name


def plain_retention(
    events, start_event, return_event, calendar, periods_, mode, now_us, start_us=None, by=None, top=10
):
    """The cohorts of each person, then the returns of each person, one by one."""
    grain = calendar["grain"]
    starts, returns = (
        values_of(events, named(start_event), calendar, by),
        days_of(events, named(return_event), calendar),
    )
    now = period(now_us, **calendar)
    members = defaultdict(set)
    for person, begun in starts.items():
        for cohort in begun if mode == "recurring" else [min(begun)]:
            if start_us is None or cohort >= period(start_us, **calendar):
                members[begun[cohort], cohort].add(person)
    names = shown(Counter(value for (value, _), people in members.items() for _ in people), top)
    rows = []
    for name in dict.fromkeys(names.values()):
        for cohort in sorted({cohort for value, cohort in members if names[value] == name}):
            cohort_people = set().union(*(people for key, people in members.items() if same(key, name, cohort, names)))
            for number in range(periods_ + 1):
                if number > distance(cohort, now, grain):
                    break
                later = [{distance(cohort, at, grain) for at in returns[p]} for p in cohort_people]
                if mode == "unbounded":
                    came = sum(number == 0 or any(n >= number for n in numbers) for numbers in later)
                else:
                    came = sum(number == 0 or number in numbers for numbers in later)
                rows.append((cohort, number, came, came / len(cohort_people), *([name] if by else [])))
    return rows


def same(key, name, cohort, names):
    return names[key[0]] == name and key[1] == cohort


def plain_lifecycle(events, name, calendar, last_us, start_us=None, by=None, top=10):
    """The state of each person in each period; dormant people keep the value of their last period."""
    grain = calendar["grain"]
    present = values_of(events, named(name), calendar, by)
    if not present:
        return []
    first = min(map(min, present.values())) if start_us is None else period(start_us, **calendar)
    every = periods(first, max(period(last_us, **calendar), *map(max, present.values())), grain)
    result = defaultdict(Counter)
    for active in present.values():
        for at in every:
            before = next((earlier for earlier in active if distance(earlier, at, grain) == 1), None)
            if at not in active:
                state = None if before is None else "dormant"
            elif min(active) == at:
                state = "new"
            else:
                state = "resurrecting" if before is None else "returning"
            if state is not None:
                result[active[before if state == "dormant" else at]][at, state] += 1
    people = {
        value: sum(n for (_, state), n in counts.items() if state != "dormant") for value, counts in result.items()
    }
    names = shown(people, top)
    rows = []
    for label in dict.fromkeys(names.values()) if by else [None]:
        totals = sum((counts for value, counts in result.items() if names[value] == label), Counter())
        for at in every:
            states = [totals[at, state] for state in ("new", "returning", "resurrecting", "dormant")]
            rows.append((at, *states, *([label] if by else [])))
    return rows


def plain_stickiness(events, name, calendar):
    counts = [len(days) for days in days_of(events, named(name), calendar).values()]
    return [
        (n, counts.count(n), counts.count(n) / len(counts), sum(count >= n for count in counts))
        for n in range(1, max(counts, default=0) + 1)
    ]


CALENDARS = st.fixed_dictionaries(
    {
        "grain": st.sampled_from(["day", "week", "month"]),
        "tz": st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]),
        "week_start": st.sampled_from(["monday", "sunday", "saturday"]),
    }
)


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    calendar=CALENDARS,
    mode=st.sampled_from(["first_time", "recurring", "unbounded"]),
    names=st.sampled_from([("visit", "buy"), (None, None), ("buy", None), ("buy", "buy")]),
    number=st.integers(1, 8),
    merges=st.sampled_from([(), (("ann", "bob"),), (("ann", "bob"), ("ann", "eve"))]),
    states=st.sampled_from(PAIRS),
)
async def test_reports_of_periods_equal_plain_python_in_any_state(
    tmp_path_factory, events, calendar, mode, names, number, merges, states
):
    """In the log, in the archive, compacted, merged, unmerged, and as of earlier moments."""
    root = tmp_path_factory.mktemp("retention")
    async for stage in stages(root, events, merges=merges, only=states, untrusted=()):
        result = await stage.ask(
            "retention", start_event=names[0], return_event=names[1], periods=number, mode=mode, **calendar
        )
        now = NOW_US if stage.as_of is None else to_us(stage.as_of)
        expected = plain_retention(stage.events, *names, calendar, number, mode, now)
        assert [tuple(row) for row in result] == expected, stage.name
        result = await stage.ask("lifecycle", event=names[0], end="2026-03-01", **calendar)
        last = _us("2026-03-01") - 1
        assert [tuple(row) for row in result] == plain_lifecycle(stage.events, names[0], calendar, last), stage.name
        result = await stage.ask("stickiness", event=names[1], **calendar)
        assert [tuple(row) for row in result] == plain_stickiness(stage.events, names[1], calendar), stage.name


async def test_split_reports_equal_plain_python(tmp_path):
    """Retention in each mode and lifecycle, split by a property of which people have several values."""
    rng = random.Random(7)
    events = [
        happened(
            rng.choice(["visit", "buy"]),
            rng.choice(PEOPLE),
            rng.randrange(40 * DAY),
            {"plan": rng.choice(["pro", "pro", "free", "team", None])},
        )
        for _ in range(50)
    ]
    events[20:20] = [identified("ann", "?p1", DAY), identified("bob", "?p2", 9 * DAY)]
    calendar = {"grain": "week", "tz": "America/Sao_Paulo", "week_start": "sunday"}
    split = {"by": "plan", "top": 1}
    async for stage in stages(tmp_path, events, merges=[("ann", "bob"), ("ann", "eve")], only=STATES):
        now = NOW_US if stage.as_of is None else to_us(stage.as_of)
        for mode in ("first_time", "recurring", "unbounded"):
            question = {"start_event": "visit", "return_event": "buy", "periods": 6, "mode": mode, **split, **calendar}
            result = await stage.shop.retention(**question, as_of=stage.as_of)
            expected = plain_retention(stage.events, "visit", "buy", calendar, 6, mode, now, **split)
            assert [tuple(row) for row in result] == expected, (stage.name, mode)
            if mode == "recurring":
                assert len({row.plan for row in result} - {"(other)"}) == 1 < len({row.plan for row in result}), (
                    stage.name
                )
        result = await stage.ask("lifecycle", end="2026-03-01", **split, **calendar)
        expected = plain_lifecycle(stage.events, None, calendar, _us("2026-03-01") - 1, **split)
        assert [tuple(row) for row in result] == expected, stage.name


def _us(day):
    from datetime import UTC, datetime

    return to_us(datetime.fromisoformat(day).replace(tzinfo=UTC))


@pytest.fixture(scope="module", params=[200, pytest.param(600, marks=pytest.mark.slow)])
def shop_events(request):
    sent = [item | {"type": "track", "anonymousId": None} for item in items(request.param)]
    return sent, seen(sent)


async def test_reports_of_a_shop_equal_plain_python(tmp_path, shop_events):
    """The same on the visits of 200 people (or 600) to a shop, by day and week."""
    sent, events = shop_events
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(sent)
        await shop.archive()
        for mode in ("first_time", "recurring", "unbounded"):
            for grain in ("day", "week"):
                calendar = {"grain": grain}
                result = await shop.retention("catalog", "cart", grain=grain, periods=10, mode=mode)
                last = max(event.us for event in events)
                expected = plain_retention(events, "catalog", "cart", calendar, 10, mode, last + 365 * DAY * 1_000_000)
                assert [tuple(row) for row in result] == expected
        result = await shop.stickiness("catalog")
        assert [tuple(row) for row in result] == plain_stickiness(events, "catalog", {"grain": "day"})
        start = "2010-01-01"
        bounded = await shop.retention("catalog", start=start, periods=3)
        assert bounded.rows == (await shop.retention("catalog", periods=3)).rows
        assert await shop.check() == []


@settings(max_examples=3, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    calendar=CALENDARS,
    mode=st.sampled_from(["first_time", "recurring", "unbounded"]),
    at=st.integers(-5 * DAY, 45 * DAY),
)
async def test_the_cohort_of_start_is_shown_whole(tmp_path_factory, events, calendar, mode, at):
    """With `start` the cohort of its period is complete, in every mode, and no person's first time changes."""
    start_us = START_US + at * 1_000_000
    async for stage in stages(tmp_path_factory.mktemp("start"), events, only=("both tiers",), untrusted=()):
        whole = await stage.ask("retention", mode=mode, periods=3, **calendar)
        result = await stage.ask("retention", mode=mode, periods=3, start=from_us(start_us), **calendar)
        expected = plain_retention(stage.events, None, None, calendar, 3, mode, NOW_US, start_us)
        assert [tuple(row) for row in result] == expected
        assert result.rows == [row for row in whole if row.cohort >= period(start_us, **calendar)]
        split = {"by": "plan", "top": 2}
        result = await stage.ask("retention", mode=mode, periods=3, start=from_us(start_us), **split, **calendar)
        expected = plain_retention(stage.events, None, None, calendar, 3, mode, NOW_US, start_us, **split)
        assert [tuple(row) for row in result] == expected
        result = await stage.ask("lifecycle", start=from_us(start_us), end="2026-03-01", **split, **calendar)
        expected = plain_lifecycle(stage.events, None, calendar, _us("2026-03-01") - 1, start_us, **split)
        assert [tuple(row) for row in result] == expected
        lives = await stage.ask("lifecycle", end="2026-03-01", **calendar)
        later = await stage.ask("lifecycle", start=from_us(start_us), end="2026-03-01", **calendar)
        shown = {row.time: tuple(row) for row in lives}
        assert all(tuple(row) == shown.get(row.time, (row.time, 0, 0, 0, 0)) for row in later)


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(), calendar=CALENDARS, grain=st.sampled_from(["hour", "day"]), name=st.sampled_from([None, "buy"])
)
async def test_stickiness_with_an_interval_has_rows_for_each(tmp_path_factory, events, calendar, grain, name):
    """The rows of an interval are those of its own events alone."""
    fine, interval = calendar | {"grain": grain}, calendar["grain"]
    async for stage in stages(tmp_path_factory.mktemp("sticky"), events, only=("both tiers",), untrusted=()):
        if interval == grain:
            with pytest.raises(QueryRefused, match="Use one of week, month"):
                await stage.ask("stickiness", interval=interval, **fine)
            continue
        result = await stage.ask("stickiness", event=name, interval=interval, **fine)
        parts = defaultdict(list)
        for event in stage.events:
            if event.person is not None and named(name)(event):
                parts[period(event.us, **calendar)].append(event)
        expected = [(at, *row) for at in sorted(parts) for row in plain_stickiness(parts[at], name, fine)]
        assert [tuple(row) for row in result] == expected


async def test_a_person_counts_with_one_value_of_by(tmp_path):
    """The first start event decides in retention, the first event of each period in lifecycle; values add up."""
    events = [
        happened("visit", "ann", 0, {"plan": "free"}),
        happened("visit", "ann", 0, {"plan": "pro"}),  # of one moment the first that was received
        happened("visit", "ann", 7 * DAY, {"plan": "pro"}),
        happened("visit", "bob", 5, {"plan": "pro"}),
        happened("visit", "bob", 4, {}),
        happened("visit", "?p1", 7 * DAY, {"plan": "pro"}),
        happened("buy", "?p1", 8 * DAY, {"plan": "free"}),
    ]
    end = {"end": "2026-01-26"}
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.ask("retention", start_event="visit", by="plan", periods=1, **end)
        assert result.columns == ("cohort", "period", "people", "rate", "plan")
        weeks = ["2026-01-05", "2026-01-12"]
        assert [(str(row.cohort), *tuple(row)[1:]) for row in result] == [
            (weeks[0], 0, 1, 1.0, "free"),
            (weeks[0], 1, 1, 1.0, "free"),
            (weeks[1], 0, 1, 1.0, "pro"),
            (weeks[1], 1, 0, 0.0, "pro"),
            (weeks[0], 0, 1, 1.0, None),
            (weeks[0], 1, 0, 0.0, None),
        ]
        again = await stage.shop.retention("visit", by="plan", periods=1, mode="recurring", top=1, **end)
        assert [(str(row.cohort), row.period, row.people, row.plan) for row in again] == [
            (weeks[1], 0, 2, "pro"),
            (weeks[1], 1, 0, "pro"),
            (weeks[0], 0, 2, "(other)"),
            (weeks[0], 1, 1, "(other)"),
        ]
        lives = await stage.shop.lifecycle(by="plan", **end)
        assert lives.columns == ("time", "new", "returning", "resurrecting", "dormant", "plan")
        assert [tuple(row)[1:] for row in lives] == [
            (0, 0, 0, 0, "pro"),
            (1, 1, 0, 0, "pro"),
            (0, 0, 0, 2, "pro"),
            (1, 0, 0, 0, "free"),
            (0, 0, 0, 0, "free"),
            (0, 0, 0, 0, "free"),
            (1, 0, 0, 0, None),
            (0, 0, 0, 1, None),
            (0, 0, 0, 0, None),
        ]


async def test_hours_of_one_visitor_also_before_1970(tmp_path):
    """A repeated hour is two hours; equal times are one; a start in the year 1 is no bound."""
    times = ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z"]
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        for at in times:
            await shop.track("visit", user_id="ann", timestamp=at)
        await shop.track("visit", timestamp="1969-12-31T00:00:00Z", anonymous_id=None, user_id="bob")
        end = "1970-01-01T03:00:00Z"
        result = await shop.retention(grain="hour", periods=3, end=end, where="user_id = 'ann'")
        assert [(row.cohort.hour, row.period, row.people) for row in result] == [
            (23, 0, 1),
            (23, 1, 1),
            (23, 2, 0),
            (23, 3, 1),
        ]
        early = await shop.retention(grain="hour", periods=3, end=end, mode="recurring", start="0001-01-01")
        assert early.rows == (await shop.retention(grain="hour", periods=3, end=end, mode="recurring")).rows
        counted = await shop.stickiness(grain="hour", end=end)
        assert [tuple(row) for row in counted] == [(1, 1, 0.5, 2), (2, 0, 0.0, 1), (3, 1, 0.5, 1)]
        assert await shop.check() == []


async def test_retention_equals_that_of_clickhouse(tmp_path, shop_events):
    """ClickHouse's `retention` over the same people, for the cohort of one day."""
    chdb = pytest.importorskip("chdb", reason="chDB comes with the extra `bench`: make bench installs it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    sent, events = shop_events
    first = {}
    for event in events:
        if event.event == "catalog":
            first[event.person] = min(first.get(event.person, event.us), event.us)
    day = Counter(period(us, "day") for us in first.values()).most_common(1)[0][0]
    rows = [(event.person, event.event, (period(event.us, "day") - day).days) for event in events]
    starters = {person for person, us in first.items() if period(us, "day") == day}
    table = pa.table(
        {"person": [row[0] for row in rows], "event": [row[1] for row in rows], "day": [row[2] for row in rows]}
    ).filter(pa.array([row[0] in starters for row in rows]))
    pq.write_table(table, tmp_path / "visits.parquet")
    conditions = ", ".join(f"day = {n} AND event = 'cart'" for n in range(1, 8))
    sql = (
        f"SELECT sumForEach(r) FROM (SELECT person, retention(day = 0 AND event = 'catalog', {conditions}) AS r "
        f"FROM file('{tmp_path / 'visits.parquet'}', Parquet) GROUP BY person)"
    )
    expected = [int(number) for number in str(chdb.query(sql, "CSV")).strip().strip('"[]').split(",")]
    async with Analytics("shop", root=tmp_path / "root", headroom_bytes=0) as shop:
        await shop.batch(sent)
        result = await shop.retention("catalog", "cart", grain="day", periods=7)
    assert [row.people for row in result if row.cohort == day] == expected


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"mode": "x"}, "first_time"),
        ({"grain": "minute"}, "hour, day"),
        ({"periods": 0}, "1 to 1000"),
        ({"periods": True}, "1 to 1000"),
        ({"tz": "Mars"}, "Europe/Berlin"),
        ({"week_start": "friday"}, "monday"),
        ({"start_event": 7}, "is not a selection of events"),
        ({"by": "People"}, "none of cohort"),
        ({"by": ""}, "none of cohort"),
        ({"by": "plan", "top": 0}, "1 to 100"),
        ({"start_event": {"event": "a", "if": "x"}}, "is not a selection of events"),
    ],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.retention(**arguments)
