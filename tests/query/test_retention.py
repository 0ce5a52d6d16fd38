"""retention, lifecycle and stickiness against plain Python that reads like their definitions."""

from __future__ import annotations

from collections import defaultdict

import pytest
from ecom import items
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_periods import distance, period, periods
from report_cases import START_US, happened, identified, seen, stages

from lakebed import Analytics, QueryRefused
from lakebed.clock import from_us, to_us

PEOPLE = ["ann", "bob", "eve", "?p1", "?p2", None]
DAY = 86_400
NOW_US = START_US + 147 * DAY * 1_000_000  # 2026-06-01


@st.composite
def streams(draw):
    """Events of few people over some weeks, with equal times, repeats, visitors who say later who they are."""
    times = st.one_of(st.integers(0, 40 * DAY), st.sampled_from([0, DAY, 7 * DAY, 7 * DAY - 1, 13 * DAY, 33 * DAY]))
    one = st.builds(
        lambda event, who, at, plan: happened(event, who, at, {"plan": plan}),
        st.sampled_from(["visit", "buy"]),
        st.sampled_from(PEOPLE),
        times,
        st.sampled_from(["pro", "free"]),
    )
    said = st.builds(identified, st.sampled_from(["ann", "bob"]), st.sampled_from(["?p1", "?p2"]), times)
    return draw(st.lists(st.one_of(one, one, one, said), min_size=1, max_size=40))


def days_of(events, matches, calendar):
    """The periods in which each person has an event that matches."""
    found = defaultdict(set)
    for event in events:
        if event.person is not None and matches(event):
            found[event.person].add(period(event.us, **calendar))
    return found


def named(name):
    return lambda event: name is None or event.event == name


def plain_retention(events, start_event, return_event, calendar, periods_, mode, now_us, start_us=None):
    """Each person's cohorts, then everybody's returns, one by one."""
    grain = calendar["grain"]
    starts, returns = days_of(events, named(start_event), calendar), days_of(events, named(return_event), calendar)
    now = period(now_us, **calendar)
    members = defaultdict(set)
    for person, begun in starts.items():
        for cohort in begun if mode == "recurring" else [min(begun)]:
            if start_us is None or cohort >= period(start_us, **calendar):
                members[cohort].add(person)
    rows = []
    for cohort in sorted(members):
        for number in range(periods_ + 1):
            if number > distance(cohort, now, grain):
                break
            later = {p: {distance(cohort, at, grain) for at in returns[p]} for p in members[cohort]}
            if mode == "unbounded":
                came = sum(number == 0 or any(one >= number for one in ones) for ones in later.values())
            else:
                came = sum(number == 0 or number in ones for ones in later.values())
            rows.append((cohort, number, came, came / len(members[cohort])))
    return rows


def plain_lifecycle(events, name, calendar, last_us):
    present = days_of(events, named(name), calendar)
    if not present:
        return []
    every = periods(
        min(map(min, present.values())),
        max(period(last_us, **calendar), *map(max, present.values())),
        calendar["grain"],
    )
    rows, before = [], None
    for at in every:
        new = sum(min(ones) == at for ones in present.values())
        returning = sum(at in ones and before in ones for ones in present.values())
        back = sum(at in ones and before not in ones and min(ones) < at for ones in present.values())
        dormant = sum(before in ones and at not in ones for ones in present.values())
        rows.append((at, new, returning, back, dormant))
        before = at
    return rows


def plain_stickiness(events, name, calendar):
    counts = [len(ones) for ones in days_of(events, named(name), calendar).values()]
    return [
        (n, counts.count(n), counts.count(n) / len(counts), sum(one >= n for one in counts))
        for n in range(1, max(counts, default=0) + 1)
    ]


CALENDARS = st.fixed_dictionaries(
    {
        "grain": st.sampled_from(["day", "week", "month"]),
        "tz": st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]),
        "week_start": st.sampled_from(["monday", "sunday", "saturday"]),
    }
)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    calendar=CALENDARS,
    mode=st.sampled_from(["first_time", "recurring", "unbounded"]),
    names=st.sampled_from([("visit", "buy"), (None, None), ("buy", None), ("buy", "buy")]),
    number=st.integers(1, 8),
    merges=st.sampled_from([(), (("ann", "bob"),), (("ann", "bob"), ("ann", "eve"))]),
)
async def test_in_every_state_it_is_what_plain_python_says(
    tmp_path_factory, events, calendar, mode, names, number, merges
):
    """In the log, in the archive, compacted, merged, taken apart, and as of then."""
    root = tmp_path_factory.mktemp("retention")
    async for stage in stages(root, events, merges=merges, untrusted=()):
        found = await stage.ask(
            "retention", start_event=names[0], return_event=names[1], periods=number, mode=mode, **calendar
        )
        now = NOW_US if stage.as_of is None else to_us(stage.as_of)
        expected = plain_retention(stage.events, *names, calendar, number, mode, now)
        assert [tuple(row) for row in found] == expected, stage.name
        found = await stage.ask("lifecycle", event=names[0], end="2026-03-01", **calendar)
        last = _us("2026-03-01") - 1
        assert [tuple(row) for row in found] == plain_lifecycle(stage.events, names[0], calendar, last), stage.name
        found = await stage.ask("stickiness", event=names[1], **calendar)
        assert [tuple(row) for row in found] == plain_stickiness(stage.events, names[1], calendar), stage.name


def _us(day):
    from datetime import UTC, datetime

    return to_us(datetime.fromisoformat(day).replace(tzinfo=UTC))


@pytest.fixture(scope="module")
def shop_events():
    sent = [item | {"type": "track", "anonymousId": None} for item in items()]
    return sent, seen(sent)


async def test_a_shop_of_600_people(tmp_path, shop_events):
    """The same on 31,106 visits, by day and week, beside SQL of another engine where it has the function."""
    sent, events = shop_events
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(sent)
        await shop.archive()
        for mode in ("first_time", "recurring", "unbounded"):
            for grain in ("day", "week"):
                calendar = {"grain": grain}
                found = await shop.retention("catalog", "cart", grain=grain, periods=10, mode=mode)
                last = max(event.us for event in events)
                expected = plain_retention(events, "catalog", "cart", calendar, 10, mode, last + 365 * DAY * 1_000_000)
                assert [tuple(row) for row in found] == expected
        found = await shop.stickiness("catalog")
        assert [tuple(row) for row in found] == plain_stickiness(events, "catalog", {"grain": "day"})
        start = "2010-01-01"
        bounded = await shop.retention("catalog", start=start, periods=3)
        assert bounded.rows == (await shop.retention("catalog", periods=3)).rows
        assert await shop.check() == []


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    calendar=CALENDARS,
    mode=st.sampled_from(["first_time", "recurring", "unbounded"]),
    at=st.integers(-5 * DAY, 45 * DAY),
)
async def test_start_chooses_whole_cohorts(tmp_path_factory, events, calendar, mode, at):
    """The cohort that `start` lies in is shown whole, whatever the mode, and nobody's first time moves."""
    start_us = START_US + at * 1_000_000
    async for stage in stages(tmp_path_factory.mktemp("start"), events, only=("both tiers",), untrusted=()):
        whole = await stage.ask("retention", mode=mode, periods=3, **calendar)
        found = await stage.ask("retention", mode=mode, periods=3, start=from_us(start_us), **calendar)
        expected = plain_retention(stage.events, None, None, calendar, 3, mode, NOW_US, start_us)
        assert [tuple(row) for row in found] == expected
        assert found.rows == [row for row in whole if row.cohort >= period(start_us, **calendar)]
        lives = await stage.ask("lifecycle", end="2026-03-01", **calendar)
        later = await stage.ask("lifecycle", start=from_us(start_us), end="2026-03-01", **calendar)
        shown = {row.time: tuple(row) for row in lives}
        assert all(tuple(row) == shown.get(row.time, (row.time, 0, 0, 0, 0)) for row in later)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(), calendar=CALENDARS, grain=st.sampled_from(["hour", "day"]), name=st.sampled_from([None, "buy"])
)
async def test_stickiness_of_each_week_or_month_by_itself(tmp_path_factory, events, calendar, grain, name):
    """With an interval, the rows of each are those of its own events alone."""
    fine, interval = calendar | {"grain": grain}, calendar["grain"]
    async for stage in stages(tmp_path_factory.mktemp("sticky"), events, only=("both tiers",)):
        if interval == grain:
            with pytest.raises(QueryRefused, match="Use one of week, month"):
                await stage.ask("stickiness", interval=interval, **fine)
            continue
        found = await stage.ask("stickiness", event=name, interval=interval, **fine)
        parts = defaultdict(list)
        for event in stage.events:
            if event.person is not None and named(name)(event):
                parts[period(event.us, **calendar)].append(event)
        expected = [(at, *row) for at in sorted(parts) for row in plain_stickiness(parts[at], name, fine)]
        assert [tuple(row) for row in found] == expected


async def test_one_visitor_by_the_hour_and_before_1970(tmp_path):
    """Hours that the clock repeats are two; equal times are one; a start in the year 1 bounds nothing."""
    times = ["1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z"]
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        for at in times:
            await shop.track("visit", user_id="ann", timestamp=at)
        await shop.track("visit", timestamp="1969-12-31T00:00:00Z", anonymous_id=None, user_id="bob")
        end = "1970-01-01T03:00:00Z"
        found = await shop.retention(grain="hour", periods=3, end=end, where="user_id = 'ann'")
        assert [(row.cohort.hour, row.period, row.people) for row in found] == [
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


async def test_chdb_retention_agrees(tmp_path, shop_events):
    """ClickHouse's `retention` over the same people, for the cohort of one day."""
    chdb = pytest.importorskip("chdb", reason="chDB comes with the extra `bench`: make bench installs it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    sent, events = shop_events
    first = {}
    for event in events:
        if event.event == "catalog":
            first[event.person] = min(first.get(event.person, event.us), event.us)
    day = min(period(us, "day") for us in first.values())
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
    theirs = [int(one) for one in str(chdb.query(sql, "CSV")).strip().strip('"[]').split(",")]
    async with Analytics("shop", root=tmp_path / "root", headroom_bytes=0) as shop:
        await shop.batch(sent)
        ours = await shop.retention("catalog", "cart", grain="day", periods=7)
    assert [row.people for row in ours if row.cohort == day] == theirs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "x"}, "first_time"),
        ({"grain": "minute"}, "hour, day"),
        ({"periods": 0}, "1 to 1000"),
        ({"periods": True}, "1 to 1000"),
        ({"tz": "Mars"}, "Europe/Berlin"),
        ({"week_start": "friday"}, "monday"),
        ({"start_event": 7}, "says no events"),
        ({"start_event": {"event": "a", "if": "x"}}, "says no events"),
    ],
)
async def test_what_cannot_be_says_what_can(tmp_path, arguments, said):
    """Each wrong argument is refused with the right ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=said):
            await shop.retention(**arguments)
