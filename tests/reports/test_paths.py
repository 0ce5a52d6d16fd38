"""paths against plain Python that reads like its definition, and the counts that enter and leave each step."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, QueryRefused
from tests.reports.ecom import items
from tests.reports.report_cases import PAIRS, START_US, happened, seen, stages
from tests.reports.test_sessions import plain_sessions, streams

pytestmark = pytest.mark.integration


def named(name):
    return lambda event: event.event == name


def by_event(event):
    return event.event


def plain_paths(
    events,
    *,
    after=None,
    before=None,
    node=by_event,
    steps=4,
    top=8,
    collapse=False,
    timeout_us=1_800_000_000,
    start_us=None,
    end_us=None,
):
    """Each session's events from the first (or back from the last) that matches; then links are counted."""
    ways = []
    for session in plain_sessions(
        [event for event in events if node(event) is not None], timeout_us, "timeout", start_us, end_us
    ):
        ordered = session if before is None else session[::-1]
        matches = before or after or (lambda _: True)
        first = next((at for at, event in enumerate(ordered) if matches(event)), None)
        if first is None:
            continue
        names = [node(event) for event in ordered[first:]]
        if collapse:
            names = [name for at, name in enumerate(names) if not at or names[at - 1] != name]
        ways.append((session[0].person, names[: steps + 1]))
    best = defaultdict(set)
    for at in range(steps + 1):
        counts = Counter(way[at] for _, way in ways if at < len(way))
        best[at] = set(sorted(counts, key=lambda name: (-counts[name], name))[:top])
    people, count = defaultdict(set), Counter()
    for person, way in ways:
        for at in range(min(len(way), steps)):
            source = way[at] if way[at] in best[at] else "(other)"
            if at + 1 == len(way):
                target = "(end)" if before is None else "(start)"
            else:
                target = way[at + 1] if way[at + 1] in best[at + 1] else "(other)"
            link = (at + 1, source, target) if before is None else (steps - at, target, source)
            people[link].add(person)
            count[link] += 1
    rows = [(*link, len(people[link]), count[link]) for link in count]
    return sorted(rows, key=lambda row: (row[0], -row[4], row[1], row[2]))


ANCHORS = (
    ({}, {}),
    ({"after": "home"}, {"after": named("home")}),
    ({"before": "pay"}, {"before": named("pay")}),
    ({"after": "never"}, {"after": named("never")}),
    (
        {"after": {"where": "json_extract_string(properties, '$.plan') = 'pro'"}},
        {"after": lambda event: event.properties["plan"] == "pro"},
    ),
    ({"before": {"event": ["pay", "cart"]}}, {"before": lambda event: event.event in ("pay", "cart")}),
    ({"by": "plan", "after": "cart"}, {"node": lambda event: event.properties["plan"], "after": named("cart")}),
)
RANGES = (
    ({}, {}),
    (
        {"start": "2026-01-05T22:00Z", "end": "2026-01-06T16:00Z"},
        {"start_us": START_US + 22 * 3600 * 1_000_000, "end_us": START_US + 40 * 3600 * 1_000_000},
    ),
    ({"start": "2026-01-05T20:10Z"}, {"start_us": START_US + 1_210 * 60 * 1_000_000}),
)


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    anchor=st.sampled_from(ANCHORS),
    within=st.sampled_from(RANGES),
    steps=st.integers(1, 5),
    top=st.integers(1, 3),
    collapse=st.booleans(),
    states=st.sampled_from(PAIRS),
)
async def test_paths_equal_plain_python_in_any_state(
    tmp_path_factory, events, anchor, within, steps, top, collapse, states
):
    """From the first event, after one, before one, within a range; collapsed or not; in any state of an object."""
    same = {"steps": steps, "top": top, "collapse": collapse}
    question, plain = (same | anchor[index] | within[index] for index in (0, 1))
    async for stage in stages(
        tmp_path_factory.mktemp("paths"), events, merges=(("ann", "bob"),), only=states, untrusted=()
    ):
        result = await stage.ask("paths", **question)
        assert [tuple(row) for row in result] == plain_paths(stage.events, **plain), stage.name


async def test_a_session_that_began_before_the_range_gives_no_path(tmp_path):
    """Such a session has no path, however close to `start` its last event before `start` is."""
    events = [happened("home", "ann", 0), happened("cart", "ann", 1800), happened("pay", "ann", 3600)]
    events += [happened("home", "bob", 1800), happened("cart", "bob", 3600.000001)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.ask("paths", start="2026-01-05T00:30Z", steps=1)
        assert [tuple(row) for row in result] == [(1, "cart", "(end)", 1, 1), (1, "home", "(end)", 1, 1)]


@pytest.mark.parametrize("people", [150, pytest.param(600, marks=pytest.mark.slow)])
async def test_paths_of_a_shop_equal_plain_python(tmp_path, people):
    """The visits of 150 people (or 600); the people who enter an event at one step leave it at the next."""
    sent = [item | {"type": "track", "anonymousId": None} for item in items(people)]
    events = seen(sent)
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(sent)
        for question in ({"after": "catalog", "collapse": True}, {"before": "cart"}, {"steps": 6, "top": 3}):
            result = await shop.paths(**question)
            plain = {name: named(value) if name in ("after", "before") else value for name, value in question.items()}
            assert [tuple(row) for row in result] == plain_paths(events, **plain)
            entered, left = Counter(), Counter()
            for row in result:
                entered[row.step, row.target] += row.count
                left[row.step - 1, row.source] += row.count
            last = max(row.step for row in result)
            inside = [key for key in entered.keys() | left.keys() if 0 < key[0] < last]
            assert all(entered[key] == left[key] for key in inside if key[1] not in ("(start)", "(end)"))
        assert await shop.check() == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"steps": 0}, "1 to 20"),
        ({"top": 101}, "1 to 100"),
        ({"after": "a", "before": "b"}, "begin or end with"),
        ({"after": 7}, "is not a selection of events"),
        ({"by": ""}, "a column or a property"),
    ],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.paths(**arguments)
