"""segmentation and top against plain Python that reads like their definitions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, QueryRefused
from lakebed.clock import from_us
from lakebed.reports.measure import formula_sql
from tests.reports.ecom import items
from tests.reports.plain_periods import period, periods
from tests.reports.questions import STATES
from tests.reports.report_cases import PAIRS, START_US, happened, identified, seen, stages

pytestmark = pytest.mark.integration

PEOPLE = ["ann", "bob", "?p1", None]
DAY = 86_400
AMOUNTS = [None, 1, 2.5, "7", "x", -3]


@st.composite
def streams(draw):
    event = st.builds(
        lambda event, who, at, plan, amount: happened(event, who, at, {"plan": plan, "amount": amount}),
        st.sampled_from(["visit", "buy", "leave"]),
        st.sampled_from(PEOPLE),
        st.integers(0, 12 * DAY),
        st.sampled_from(["pro", "free", "team", None]),
        st.sampled_from(AMOUNTS),
    )
    identifies = st.builds(identified, st.just("ann"), st.just("?p1"), st.integers(0, DAY))
    return draw(st.lists(st.one_of(event, event, event, identifies), min_size=1, max_size=40))


def number(value):
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def measured(events, measure):
    numbers = [n for e in events if (n := number(e.properties.get("amount"))) is not None]
    return {
        "count": len(events),
        "people": len({e.person for e in events} - {None}),
        "sum(amount)": sum(numbers) if numbers else None,
        "avg(amount)": sum(numbers) / len(numbers) if numbers else None,
        "max(amount)": max(numbers, default=None),
    }[measure]


def plain_segmentation(events, names, measure, calendar, by=None, top=10, start_us=None, end_us=None, before_us=None):
    """(time, series, by, value) of every period, group and series; with `before_us`, also of the periods since it."""
    selected = [e for e in events if e.event in names]
    earliest = start_us if before_us is None else before_us
    selected = [e for e in selected if (earliest is None or e.us >= earliest) and (end_us is None or e.us < end_us)]
    if not selected and (by or start_us is None or end_us is None):
        return []
    own = [e for e in selected if before_us is None or e.us >= start_us]
    current, counts = (Counter(e.properties.get(by) for e in some) for some in (own, selected))
    best = sorted(counts, key=lambda value: (-current[value], -counts[value], value is None, value or ""))[:top]

    def group(event):
        value = event.properties.get(by) if by else None
        return value if not by or value in best else "(other)"

    first = min(e.us for e in selected) if start_us is None else start_us
    last = max(e.us for e in selected) if end_us is None else end_us - 1
    result = defaultdict(list)
    for e in selected:
        result[before_us is not None and e.us < start_us, period(e.us, **calendar), e.event, group(e)].append(e)
    rows = []
    groups = sorted({group(e) for e in selected} if by else {None}, key=lambda value: (value is None, value or ""))
    for is_before, low, high in [(False, first, last), (True, before_us, start_us and start_us - 1)]:
        if low is None:
            continue
        rows += [
            (at, name, value, measured(result[is_before, at, name, value], measure))
            for at in periods(period(low, **calendar), period(high, **calendar), calendar["grain"])
            for name in names
            for value in groups
        ]
    return rows


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    names=st.sampled_from([["visit"], ["visit", "buy"], ["buy", "leave", "visit"]]),
    measure=st.sampled_from(["count", "people", "sum(amount)", "avg(amount)", "max(amount)"]),
    calendar=st.fixed_dictionaries(
        {
            "grain": st.sampled_from(["day", "week", "month"]),
            "tz": st.sampled_from(["UTC", "Asia/Kathmandu", "Europe/Berlin"]),
        }
    ),
    top=st.integers(1, 4),
    bounded=st.booleans(),
    states=st.sampled_from(PAIRS),
)
async def test_segmentation_equals_plain_python_in_any_state(
    tmp_path_factory, events, names, measure, calendar, top, bounded, states
):
    """All measures, with and without `by`, in any state of an object; `top` counts the same events."""
    limits = {"start": "2026-01-06T00:10Z", "end": "2026-01-15T00:20Z"} if bounded else {}
    us = {"start_us": START_US + (DAY + 600) * 1_000_000, "end_us": START_US + (10 * DAY + 1200) * 1_000_000}
    us = us if bounded else {}
    async for stage in stages(
        tmp_path_factory.mktemp("seg"), events, merges=(("ann", "bob"),), only=states, untrusted=()
    ):
        result = await stage.ask("segmentation", events=names, measure=measure, **calendar, **limits)
        expected = plain_segmentation(stage.events, names, measure, calendar, **us)
        assert [tuple(row) for row in result] == [(at, name, value) for at, name, _, value in expected], stage.name
        result = await stage.ask(
            "segmentation", events=names, measure=measure, by="plan", top=top, **calendar, **limits
        )
        expected = plain_segmentation(stage.events, names, measure, calendar, "plan", top, **us)
        assert [(row[0], row[1], row[2], row[3]) for row in result] == expected, stage.name
        for people in (True, False):
            rows = await stage.ask("top", people=people, n=2)
            assert compared(rows, people=people) == plain_top(stage.events, 2, people=people)


def compared(rows, *, people):
    return [(row.value, row.count, pytest.approx(row.share), *([row.people] if people else [])) for row in rows]


def plain_top(events, n, *, people, other=False):
    """The n most frequent names, and all other names as one group."""
    result = defaultdict(list)
    for event in events:
        if event.event is not None:
            result[event.event].append(event)
    total = sum(map(len, result.values()))
    ranked = sorted(result, key=lambda name: (-len(result[name]), name))
    best = {name: result[name] for name in ranked[:n]}
    if other and ranked[n:]:
        best["(other)"] = [event for name in ranked[n:] for event in result[name]]
    return [
        (name, len(some), len(some) / total, *([measured(some, "people")] if people else []))
        for name, some in best.items()
    ]


async def test_compare_and_other_rows_equal_plain_python(tmp_path):
    """The period before has rows of its own, for the same values; the other values are one row."""
    rng = random.Random(5)
    events = [
        happened(
            rng.choice(["visit", "buy", "leave"]),
            rng.choice(PEOPLE),
            rng.randrange(12 * DAY),
            {"plan": rng.choice(["pro", "free", "team", None]), "amount": rng.choice(AMOUNTS)},
        )
        for _ in range(60)
    ]
    events[20:20] = [identified("ann", "?p1", DAY)]
    names, calendar = ["visit", "buy"], {"grain": "day", "tz": "Asia/Kathmandu"}
    us = {"start_us": START_US + 6 * DAY * 1_000_000 + 600_000_000, "end_us": START_US + 11 * DAY * 1_000_000}
    before = us | {"before_us": 2 * us["start_us"] - us["end_us"]}
    limits = {"start": from_us(us["start_us"]), "end": from_us(us["end_us"]), "compare": True}
    async for stage in stages(tmp_path, events, merges=[("ann", "bob")], only=STATES, untrusted=()):
        for measure, by in (("count", {}), ("people", {"by": "plan", "top": 2}), ("sum(amount)", {"by": "plan"})):
            question = {"events": names, "measure": measure, **by, **calendar, **limits}
            result = await stage.ask("segmentation", **question)
            expected = plain_segmentation(stage.events, names, measure, calendar, **by, **before)
            rows = [(row.time, row.series, row.plan if by else None, row.value) for row in result]
            assert rows == expected, (stage.name, measure)
        for people in (True, False):
            rows = await stage.ask("top", people=people, n=2, other=True)
            assert compared(rows, people=people) == plain_top(stage.events, 2, people=people, other=True), stage.name


async def test_segmentation_of_a_shop_equals_plain_python(tmp_path):
    """From the rollup of hours and from raw events alike; a formula over two series; whole hours only."""
    sent = [item | {"type": "track", "anonymousId": None} for item in items()]
    events = seen(sent)
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(sent)
        await shop.archive()
        expected = plain_segmentation(events, ["catalog", "cart"], "count", {"grain": "day"})
        rolled = await shop.segmentation(["catalog", "cart"])
        raw = await shop.segmentation(["catalog", "cart"], where="true")
        assert (rolled.tiers, raw.tiers) == (("L2",), ("L3",))
        assert [tuple(r) for r in rolled] == [tuple(r) for r in raw] == [(a, n, v) for a, n, _, v in expected]
        split = await shop.segmentation(["catalog", "cart"], by="event", grain=None)
        assert split.tiers == ("L2",)
        assert {(row.series, row["event"]): row.value for row in split} == {
            (name, other): sum(e.event == name for e in events) if name == other else 0
            for name in ("catalog", "cart")
            for other in ("catalog", "cart")
        }
        odd = {"start": "2024-01-16T08:53Z", "end": "2024-01-24T08:13:00.000001Z"}
        edges = await shop.segmentation("cart", **odd, tz="America/New_York")
        raw = await shop.segmentation("cart", **odd, tz="America/New_York", where="true")
        assert (edges.tiers, raw.tiers, edges.rows) == (("L2", "L3"), ("L3",), raw.rows)
        assert sum(row.value for row in edges) == 5  # the first and the last lie in parts of an hour
        moments = ["2024-01-10T05:00Z", "2024-01-17T12:00Z", "2024-01-24T19:00Z"]
        week = {"start": moments[1], "end": moments[2], "by": "event"}
        result = await shop.segmentation(["catalog", "cart"], **week, compare=True)
        raw = await shop.segmentation(["catalog", "cart"], **week, compare=True, where="true")
        assert (result.tiers, raw.tiers, result.rows) == (("L2",), ("L3",), raw.rows)
        assert result.columns == ("time", "series", "event", "value", "period")
        for at, name in enumerate(("previous", "current")):
            alone = await shop.segmentation(["catalog", "cart"], start=moments[at], end=moments[at + 1], by="event")
            assert [tuple(row)[:-1] for row in result if row.period == name] == [tuple(row) for row in alone]
        assert [row.period for row in result] == sorted(row.period for row in result)
        late = {"start": "2024-01-17T12:30Z", "end": "2024-01-24T19:00Z"}
        result = await shop.segmentation("cart", **late, compare=True, grain=None)
        assert (result.tiers, [row.period for row in result]) == (("L3",), ["current", "previous"])
        assert result[0].value == (await shop.segmentation("cart", **late, grain=None))[0].value
        halves = await shop.segmentation("cart", tz="Asia/Kolkata")
        assert (halves.tiers, halves.rows) == (
            ("L3",),
            (await shop.segmentation("cart", tz="Asia/Kolkata", where="true")).rows,
        )
        share = await shop.segmentation(["catalog", "cart"], formula="(A - B) / A * 100", grain=None)
        catalog, cart = (sum(e.event == name for e in events) for name in ("catalog", "cart"))
        assert [tuple(row) for row in share] == [("(A - B) / A * 100", pytest.approx((catalog - cart) / catalog * 100))]
        nothing = await shop.segmentation(["catalog", "never"], formula="A / B", grain=None)
        assert nothing[0].value is None
        empty = await shop.segmentation("never", start="2024-01-01", end="2024-01-03", measure="sum(x)")
        assert [row.value for row in empty] == [None, None]
        assert len(await shop.segmentation("cart", start="2024-01-01T01:00Z", end="2024-01-01T01:00Z")) == 0
        months = await shop.segmentation("cart", grain="month")
        assert (months.tiers, [tuple(row) for row in months]) == (
            ("L2",),
            [(a, n, v) for a, n, _, v in plain_segmentation(events, ["cart"], "count", {"grain": "month"})],
        )
        assert (await shop.top(people=False)).tiers == ("L2",)
        assert (await shop.top("platform", event="cart")).rows == (
            await shop.report_untrusted("top", {"what": "platform", "event": "cart"})
        ).rows
        assert await shop.check() == []


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "A +",
        "C",
        "A ** 2",
        "A if B else 1",
        "print(A)",
        "A; B",
        "'x'",
        "A == B",
        "True",
        "a",
        "A" * 300,
        "A * 1e999",
    ],
)
def test_a_formula_takes_nothing_but_arithmetic(wrong):
    """A formula with anything except numbers, letters and four signs is refused, with a hint."""
    with pytest.raises(QueryRefused, match="A to B"):
        formula_sql(wrong, ["x", "y"])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"events": []}, "1 to 26"),
        ({"by": "value"}, "are taken"),
        ({"by": ["plan", "Plan"]}, "each once"),
        ({"measure": "mode(x)"}, "Use count"),
        ({"top": 0}, "1 to"),
        ({"formula": "A + B"}, "numbers, A for"),
        ({"compare": True, "start": "2026-01-01"}, "Give `start` and `end`"),
        ({"compare": True, "start": "0001-01-02", "end": "2026-01-01"}, "later start"),
        ({"compare": True, "start": "2026-01-01", "end": "2026-01-02", "by": "period"}, "period are taken"),
    ],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.segmentation(**arguments)
        with pytest.raises(QueryRefused, match="1 to"):
            await shop.top(n=0)
