"""Funnels against a plain model of their definition, and against chDB."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed import Analytics, QueryError, QueryRefused
from lakebed.clock import from_us, to_us
from tests.reports import funnel_model
from tests.reports.funnel_model import Plain
from tests.reports.report_cases import START_US, happened, identified, stages

pytestmark = pytest.mark.integration

# A step as the report takes it, and as the model does. The model compares steps by identity.
NAMED = {name: lambda event, name=name: event.event == name for name in "abcx"}
PAID = ({"event": ["a", "b"], "where": "json_extract_string(properties, '$.paid') = 'yes'"},)
CHOICES = [
    *((name, NAMED[name]) for name in "abc"),
    ({"event": ["a", "b"], "where": "properties->>'$.paid' = 'yes'", "label": "paid"},
     lambda event: event.event in ("a", "b") and event.properties.get("paid") == "yes"),
    ({"where": "type = 'identify'", "label": "signed up"}, lambda event: event.type == "identify"),
]  # fmt: skip
SIGNED_UP = (
    {"where": "type = 'identify'"},
    lambda event: event.type == "identify",
)  # it has no name, and does not affect the order
EXCLUDED = [*(({"event": name}, NAMED[name]) for name in "xxab"), SIGNED_UP, SIGNED_UP]


def compared(rows):
    """Rows with rounded floats: a median of two is exact to a microsecond."""
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def label(step):
    return step if isinstance(step, str) else step["label"]


@st.composite
def questions(draw):
    """Arguments of a funnel, and the same for the model."""
    selected = draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4))
    order = draw(st.sampled_from(["ordered", "ordered", "strict", "any"]))
    start, end = sorted(draw(st.lists(st.integers(0, 30), min_size=2, max_size=2)))
    bounded = draw(st.booleans())
    arguments = {
        "steps": [step for step, _ in selected],
        "within": draw(st.sampled_from([1, 3, 7, 100])),
        "order": order,
        "allow_equal": draw(st.booleans()),
    }
    plain = Plain([meant for _, meant in selected], arguments["within"] * 1_000_000, order, arguments["allow_equal"])
    if draw(st.sampled_from([False, False, True])):
        arguments["holding"], plain = "order", plain._replace(holding="order")
    if order != "any" and draw(st.booleans()):
        arguments["totals"] = True
    if bounded:
        low, high = START_US + start * 1_000_000, START_US + end * 1_000_000
        arguments |= {"start": from_us(low), "end": from_us(high)}
        plain = plain._replace(start_us=low, end_us=high)
    if len(selected) > 1 and draw(st.booleans()):
        first = 1 if order == "any" else draw(st.integers(1, len(selected) - 1))
        last = len(selected) if order == "any" else draw(st.integers(first + 1, len(selected)))
        what, meant = draw(st.sampled_from(EXCLUDED))
        arguments["exclude"] = [what | {"between": [first, last]}]
        plain = excluding(plain, meant, first, last)
    return arguments, plain


PEOPLE = ["ann", "bob", "cy", "?1", "?2", None]
EVENTS = st.lists(
    st.one_of(
        st.builds(
            happened,
            st.sampled_from("aabbcx"),
            st.sampled_from(PEOPLE),
            st.integers(0, 30),
            st.sampled_from([{}, {"paid": "yes"}, {"order": "1"}, {"order": "1", "paid": "yes"}, {"order": "2"}]),
        ),
        st.builds(identified, st.sampled_from(PEOPLE[:3]), st.sampled_from(PEOPLE[3:5]), st.integers(0, 30)),
    ),
    min_size=6,
    max_size=60,
)


async def compare(stage, question):
    for arguments, plain in question:
        labels = [label(step) for step in arguments["steps"]]
        if arguments["order"] == "any":
            labels = [f"any {at} of {len(labels)}" for at in range(1, len(labels) + 1)]
        result = await stage.ask("funnel", **arguments)
        expected = funnel_model.rows(plain, stage.events, labels)
        if "totals" in arguments:
            counts = funnel_model.totals(plain, stage.events)
            shares = [count / counts[0] if counts[0] else None for count in counts]
            expected = [(*row, *total) for row, *total in zip(expected, counts, shares, strict=True)]
        assert compared(result) == compared(expected), (stage.name, arguments)


async def follow(events, question, **options):
    used = {event["userId"] for event in events}
    merges = [("ann", "bob")] if {"ann", "bob"} <= used else []
    with TemporaryDirectory() as root:
        async for stage in stages(Path(root), events, merges=merges, untrusted=(), **options):
            await compare(stage, question)


@settings(max_examples=4, derandomize=True)
@given(events=EVENTS, question=st.lists(questions(), min_size=4, max_size=4))
async def test_funnels_equal_the_plain_model(events, question):
    """Any funnel over any events, before and after merges, and as of a moment before them."""
    await follow(events, question, only=("merged", "as of the first half"))


@pytest.mark.slow
@settings(max_examples=25, derandomize=True)
@given(events=EVENTS, question=st.lists(questions(), min_size=6, max_size=6))
async def test_funnels_equal_the_plain_model_in_every_state(events, question):
    """The same in every state of an object, with more examples."""
    await follow(events, question)


@pytest.fixture(scope="module")
def crowd():
    """Events of 120 people with few moments, so that much happens at once."""
    rng = random.Random(4)
    identifies = [identified(f"u{rng.randrange(120)}", f"?{n}", rng.randrange(25)) for n in range(0, 120, 3)]
    return identifies + [
        happened(
            rng.choice("aabbccx"),
            f"{rng.choice('?u')}{rng.randrange(120)}",
            rng.randrange(25),
            {"paid": rng.choice(["yes", "no"])},
        )
        for _ in range(1_600)
    ]


async def test_each_person_reaches_the_step_of_the_plain_model(tmp_path, crowd):
    """For each of 120 people the furthest step and its times equal the plain model's, in funnels of every kind."""
    paid = CHOICES[3]
    kinds = [
        {"order": order, "allow_equal": equal} for order in ("ordered", "strict", "any") for equal in (False, True)
    ]
    async for stage in stages(tmp_path, crowd, only=("both tiers",)):
        for kind in kinds:
            for number, selected in enumerate(([*CHOICES[:3]], [CHOICES[0], CHOICES[0], paid, CHOICES[1]])):
                arguments = {"steps": [step for step, _ in selected], "within": 6, **kind}
                plain = Plain([meant for _, meant in selected], 6_000_000, **kind)
                questions = [(arguments, plain)]
                if kind["order"] == "ordered":
                    arguments["exclude"] = ["x"] if number else [{"event": "x", "between": [2, 3]}]
                    arguments |= {"start": from_us(START_US + 3_000_000), "end": from_us(START_US + 15_000_000)}
                    plain = plain._replace(start_us=START_US + 3_000_000, end_us=START_US + 15_000_000)
                    questions = [(arguments, excluding(plain, NAMED["x"], *((1, 4) if number else (2, 3))))]
                elif number and kind == {"order": "strict", "allow_equal": False}:
                    what, meant = SIGNED_UP
                    excluded = arguments | {"exclude": [what | {"between": [1, 3]}]}
                    questions.append((excluded, excluding(plain, meant, 1, 3)))
                elif number and kind == {"order": "any", "allow_equal": False}:
                    questions.append((arguments | {"exclude": ["x"]}, excluding(plain, NAMED["x"], 1, 4)))
                result = [await furthest(stage.shop, question) for question, _ in questions]
                for (question, funnel), people in zip(questions, result, strict=True):
                    times = {
                        person: attempt.times for person, attempt in funnel_model.attempts(funnel, stage.events).items()
                    }
                    assert people == {
                        person: (len(reached), reached[0], reached[-1]) for person, reached in times.items()
                    }, question
                    assert len(times) > 40, question
                assert len(result) == 1 or result[0] != result[1]


def excluding(plain, meant, first, last):
    return plain._replace(excluded=((meant, first, last),))


async def furthest(shop, arguments):
    """The furthest step of each person, and the times of their first and furthest steps."""
    result = await shop.funnel_people(**arguments, step=1, outcome="converted", limit=10_000)
    return {row.person_id: (row.step, to_us(row.began), to_us(row.reached)) for row in result}


async def rows_of(shop, steps, within="1h", **options):
    return [tuple(row)[:3] for row in await shop.funnel(steps, within, **options)]


def people(result):
    return [row[2] for row in result]


async def test_a_step_needs_a_later_timestamp_unless_equal_ones_are_allowed(tmp_path):
    """Events of one microsecond are not successive steps; with `allow_equal` they are, in order of receipt."""
    events = [happened("a", "ann", 5), happened("b", "ann", 5), happened("b", "bob", 5), happened("a", "bob", 5)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        assert people(await rows_of(stage.shop, ["a", "b"])) == [2, 0]
        assert people(await rows_of(stage.shop, ["a", "b"], allow_equal=True)) == [2, 1]
        assert people(await rows_of(stage.shop, ["a", "b"], order="any")) == [2, 2]


async def test_the_same_step_twice_needs_two_events(tmp_path):
    """One event is never two steps, in any order, also with equal timestamps."""
    events = [happened("a", "ann", 5), happened("a", "bob", 5), happened("a", "bob", 6), happened("a", "cy", 5)]
    async for stage in stages(tmp_path, [*events, happened("a", "cy", 5)], only=("both tiers",)):
        assert people(await rows_of(stage.shop, ["a", "a"])) == [3, 1]
        assert people(await rows_of(stage.shop, ["a", "a"], order="strict")) == [3, 1]
        assert people(await rows_of(stage.shop, ["a", "a"], allow_equal=True)) == [3, 2]
        assert people(await rows_of(stage.shop, ["a", "a"], order="any")) == [3, 2]
        labelled = ["a", {"event": "a", "label": "again"}]
        assert people(await rows_of(stage.shop, labelled, order="any")) == [3, 2]


async def test_an_attempt_begins_in_the_range_and_may_end_after_it(tmp_path):
    """The window includes its end; an entry at `end` does not count, a conversion after `end` does; also in 1969."""
    events = [
        happened("a", "early", -1),
        happened("b", "early", 1),
        happened("a", "ann", 0),
        happened("b", "ann", 60),
        happened("a", "bob", 9),
        happened("b", "bob", 69.000001),
        happened("a", "late", 10),
        happened("b", "late", 11),
        happened("a", "old", -2_000_000_000),
        happened("b", "old", -1_999_999_990),
    ]
    bounds = {"start": from_us(START_US), "end": from_us(START_US + 10_000_000)}
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        for options in ({}, {"order": "strict"}, {"allow_equal": True}, {"order": "any"}):
            result = await stage.shop.funnel_people(["a", "b"], "60s", **bounds, **options)
            converted = await stage.shop.funnel_people(["a", "b"], "60s", outcome="converted", **bounds, **options)
            assert [(row.person_id, row.step) for row in result if row.person_id != "early"] == [("bob", 1)], options
            assert {row.person_id: row.seconds for row in converted} == {"ann": 60.0}, options
        old = await stage.shop.funnel_people(["a", "b"], "60s", end="1970-01-01", outcome="converted")
        assert [(row.person_id, row.seconds) for row in old] == [("old", 10.0)]


async def test_the_attempt_that_got_furthest_counts(tmp_path):
    """Of attempts with equally many steps the first to get there counts; of those, the last to begin."""
    events = [
        *(happened("a", "ann", at) for at in (0, 10, 20)),
        *(happened("b", "ann", at) for at in (30, 40)),
        *(happened(name, "ann", at) for name, at in (("a", 100), ("b", 110), ("c", 130), ("a", 200), ("b", 201))),
        happened("c", "ann", 202),
    ]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        assert [row.median_seconds for row in await stage.shop.funnel(["a", "b"], "1h")] == [None, 10.0]
        result = await stage.shop.funnel(["a", "b", "c"], "60s")
        assert [row.median_seconds for row in result] == [None, 10.0, 20.0]


async def test_by_has_the_value_at_the_beginning_of_the_attempt(tmp_path):
    """`by` takes the value of the first event of the attempt; `top` names the largest, the others are one group."""
    plans = {"ann": "pro", "bob": "pro", "cy": "free", "dan": "free", "eve": "free", "flo": None, "gil": "trial"}
    events = [happened("a", person, at, {"plan": plan}) for at, (person, plan) in enumerate(plans.items())]
    events += [happened("b", person, 30, {"plan": "changed"}) for person in ("ann", "cy", "gil")]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.ask("funnel", steps=["a", "b"], by="plan", top=2)
        assert result.columns[-1] == "plan"
        assert [(row.plan, row.step, row.people) for row in result] == [
            ("free", 1, 3),
            ("free", 2, 1),
            ("pro", 1, 2),
            ("pro", 2, 1),
            ("(other)", 1, 2),
            ("(other)", 2, 1),
        ]
        assert {row.plan for row in await stage.ask("funnel", steps=["a"], by="plan")} == {"free", "pro", "trial", None}
        for taken in ("nth", "value", "row", "tried", "depth", "t1"):  # properties may have any name of our SQL
            assert [row[-1] for row in await stage.shop.funnel(["a", "b"], by=taken)] == [None, None]
        by_column = await stage.ask("funnel", steps=["a", "b"], by="person_id", order="any", top=1)
        assert [(row.person_id, row.people) for row in by_column] == [
            ("ann", 1),
            ("ann", 1),
            ("(other)", 6),
            ("(other)", 2),
        ]


async def test_compare_adds_the_rows_of_the_period_before(tmp_path):
    """Each of the two periods has the rows that it has alone."""
    events = [happened("a", f"u{n}", n, {"plan": ("pro", "free")[n % 2]}) for n in range(20)]
    events += [happened("b", f"u{n}", n + 0.5) for n in range(0, 20, 3)]
    moments = [from_us(START_US + second * 1_000_000) for second in (4, 10, 16)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.ask("funnel", steps=["a", "b"], start=moments[1], end=moments[2], compare=True)
        assert result.columns[-1] == "period"
        for at, period in enumerate(("previous", "current")):
            alone = await stage.shop.funnel(["a", "b"], start=moments[at], end=moments[at + 1])
            assert [tuple(row)[:-1] for row in result if row.period == period] == [tuple(row) for row in alone]
        split = await stage.ask("funnel", steps=["a"], start=moments[1], end=moments[2], compare=True, by="plan")
        assert [(row.period, row.plan, row.people) for row in split] == [
            ("current", "free", 3),
            ("current", "pro", 3),
            ("previous", "free", 3),
            ("previous", "pro", 3),
        ]


async def test_excluded_events_end_an_attempt_in_every_order(tmp_path):
    """In strict order only excluded events without a name matter; in any order later events do not count."""
    events = [
        *(happened("a", who, 1) for who in ("ann", "bob", "cy", "dan")),
        happened("x", "bob", 2),
        identified("cy", "?1", 2),
        identified("dan", "?2", 3),
        *(happened("b", who, 3) for who in ("ann", "bob", "cy", "dan")),
        happened("c", "ann", 4),
        happened("a", "bob", 5),
        happened("x", "dan", 4),
        happened("c", "dan", 4),
        happened("x", "?3", 0),
        happened("b", "?3", 0),
        happened("a", "?3", 0.5),
        *(happened(name, "eve", at) for at, name in enumerate("axb")),
    ]
    no_name = {"where": "event IS NULL"}
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        question = {"steps": ["a", "b"], "order": "strict"}
        assert people(await stage.shop.funnel(**question)) == [6, 3]
        assert people(await stage.shop.funnel(**question, exclude=[no_name])) == [6, 2]  # dan's is in the same moment
        assert people(await stage.shop.funnel(**question, exclude=["x"])) == [6, 3]
        assert people(await stage.shop.funnel(**question, exclude=[no_name], allow_equal=True)) == [6, 1]
        three = {"steps": ["a", "b", "c"], "order": "strict", "exclude": [no_name | {"between": [2, 3]}]}
        assert people(await stage.shop.funnel(**three)) == [6, 3, 2]
        question = {"steps": ["a", "b", "c"], "order": "any"}
        assert people(await stage.shop.funnel(**question)) == [6, 6, 2]
        # Bob begins again with b; dan's event in the moment of his x still counts; ?3 began in the moment of its x.
        assert people(await stage.shop.funnel(**question, exclude=["x"])) == [6, 5, 2]
        assert people(await stage.shop.funnel(["a", "c"], order="any", exclude=["b"])) == [6, 0]


async def test_totals_count_every_entry(tmp_path):
    """Each entry is an attempt, and an event continues one of them: the one that began last."""
    tracks = {"ann": "aab", "bob": "abab", "cy": "aaxb", "dan": "abb", "eve": "b"}
    events = [happened(name, who, at) for who, names in tracks.items() for at, name in enumerate(names)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.shop.funnel(["a", "b"], totals=True)
        assert result.columns[-2:] == ("total", "total_conversion")
        assert [(row.people, row.total, row.total_conversion) for row in result] == [(4, 7, 1.0), (4, 5, 5 / 7)]
        result = await stage.shop.funnel(["a", "b"], totals=True, exclude=["x"])
        assert [(row.people, row.total) for row in result] == [(4, 7), (3, 4)]
        bounds = {"start": from_us(START_US + 1_000_000), "end": from_us(START_US + 2_000_000)}
        result = await stage.shop.funnel(["a", "b"], totals=True, compare=True, **bounds)
        assert [(row.period, row.people, row.total) for row in result] == [
            ("current", 2, 2),
            ("current", 2, 2),
            ("previous", 4, 4),
            ("previous", 4, 4),
        ]
        assert [row.total for row in await stage.shop.funnel(["x", "a", "b"], totals=True)] == [1, 0, 0]
        none = await stage.shop.funnel(["never"], totals=True)
        assert [(row.total, row.total_conversion) for row in none] == [(0, None)]


async def test_holding_requires_one_value_in_all_steps(tmp_path):
    """Only events of one value follow each other; a person counts once, with the value that got furthest."""
    orders = {
        "ann": ["1a", "2a", "2b"],
        "bob": ["1a", "2b"],
        "cy": ["1a", "b"],
        "dan": ["a"],
        "eve": ["1a", "2x", "1b"],
    }
    events = [
        happened(name[-1], who, at, {"order": int(name[:-1])} if name[:-1] else {})
        for who, each in orders.items()
        for at, name in enumerate(each)
    ]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        question = {"steps": ["a", "b"], "holding": "order"}
        assert people(await stage.shop.funnel(["a", "b"])) == [5, 4]
        assert people(await stage.shop.funnel(**question)) == [4, 2]
        split = await stage.shop.funnel(**question, by="order")
        assert [(row.order, row.people) for row in split] == [("1", 3), ("1", 1), ("2", 1), ("2", 1)]
        assert [row.total for row in await stage.shop.funnel(**question, totals=True)] == [5, 2]
        # Events with another value count as another person's: they exclude nothing, and do not affect the order.
        assert people(await stage.shop.funnel(**question, exclude=["x"])) == [4, 2]
        assert people(await stage.shop.funnel(**question, order="strict")) == [4, 2]
        assert people(await stage.shop.funnel(**question, order="any")) == [4, 2]
        result = await stage.shop.funnel_people(**question, outcome="converted")
        assert [(row.person_id, row.seconds) for row in result] == [("ann", 1.0), ("eve", 2.0)]
        times = await stage.shop.funnel_times(**question)
        assert [row.people for row in times if row.people] == [1, 1]
        assert people(await stage.shop.funnel(["a", "b"], holding="person_id")) == [5, 4]
        question |= {"exclude": [{"where": "event = 'x'"}]}
        assert people(await stage.ask("funnel", **question, order="strict", totals=True)) == [4, 2]
        assert people(await stage.shop.funnel(**question, order="any", by="order"))[:2] == [3, 1]


async def test_a_funnel_without_people_has_rows(tmp_path):
    """The counts are 0 and the shares NULL; with `by` there is no row."""
    async for stage in stages(tmp_path, [happened("a", None, 1), happened("b", "ann", 1)], only=("both tiers",)):
        for order in ("ordered", "strict"):
            result = await stage.ask("funnel", steps=["a", "b"], order=order)
            assert [tuple(row) for row in result] == [(1, "a", 0, None, None, None), (2, "b", 0, None, None, None)]
        assert len(await stage.shop.funnel(["a", "b"], by="plan")) == 0
        assert len(await stage.shop.funnel_people(["a", "b"])) == 0


async def test_funnel_people_come_in_pages(tmp_path):
    """`after` and `limit` page by id through all people that the funnel counts; the sandbox gives the same."""
    events = [happened("a", f"u{n:02}", n) for n in range(25)] + [
        happened("b", f"u{n:02}", 30) for n in range(0, 25, 2)
    ]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        question = {"steps": ["a", "b"], "step": 2, "outcome": "dropped"}
        result, after = [], None
        while page := await stage.ask("funnel_people", **question, limit=5, **({"after": after} if after else {})):
            result += [row.person_id for row in page]
            after = result[-1]
        assert result == [f"u{n:02}" for n in range(1, 25, 2)]
        assert len(await stage.ask("funnel_people", steps=["a", "b"], step=1)) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": []},
        {"steps": "abc"},
        {"steps": ["a"] * 21},
        {"steps": [{"name": "a"}]},
        {"steps": ["a", "b"], "order": "sideways"},
        {"steps": ["a", "b"], "within": "soon"},
        {"steps": ["a", "b", "c"], "exclude": [{"event": "x", "between": [1, 2]}], "order": "any"},
        {"steps": ["a"], "exclude": ["x"], "order": "any"},
        {"steps": ["a", "b"], "totals": True, "order": "any"},
        {"steps": ["a", "b"], "totals": True, "by": "plan"},
        {"steps": ["a", "b"], "holding": ""},
        {"steps": ["a", "b"], "exclude": [{"event": "x", "between": [1, 3]}]},
        {"steps": ["a", "b"], "exclude": [{"event": "x", "between": [2, 1]}]},
        {"steps": ["a", "b"], "exclude": [{"event": "x", "between": "1-2"}]},
        {"steps": ["a", "b"], "compare": True},
        {"steps": ["a", "b"], "compare": True, "start": "0001-01-02", "end": "2026-01-01"},
        {"steps": ["a", "b"], "by": "people"},
        {"steps": ["a", "b"], "top": 0},
        {"steps": ["a", {"event": "b", "where": "1); DROP TABLE events; --"}]},
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_invalid_arguments_of_funnel_are_refused(crowded, arguments):
    """An invalid argument is an error with a hint, never a number."""
    with pytest.raises((QueryRefused, QueryError)):
        await crowded.funnel(**arguments)


@pytest.mark.parametrize("arguments", [{"step": 0}, {"step": 3}, {"outcome": "gone"}, {"limit": -1}, {"limit": 10_001}])
@pytest.mark.asyncio(loop_scope="module")
async def test_invalid_arguments_of_funnel_people_are_refused(crowded, arguments):
    """The same for the list of people."""
    with pytest.raises(QueryRefused):
        await crowded.funnel_people(["a", "b"], **arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowded(tmp_path_factory):
    """An object of which only the refusals are asked: one for all."""
    async with Analytics("shop", root=tmp_path_factory.mktemp("crowded"), headroom_bytes=0) as shop:
        yield shop


async def test_funnel_times_count_each_person_in_one_bin(tmp_path):
    """Each person who reached the step is in one bin, by the attempt that counts; all bins have one round width."""
    seconds = [1, 1.5, 2, 9, 61.25, 61.75]
    events = [happened("a", f"u{n}", n) for n in range(7)]
    events += [happened("b", f"u{n}", n + took) for n, took in enumerate(seconds)]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        result = await stage.ask("funnel_times", steps=["a", "b"], bins=100)
        assert [(row.from_seconds, row.to_seconds) for row in result] == [(n, n + 1) for n in range(1, 62)]
        assert {row.from_seconds: row.people for row in result if row.people} == {1: 2, 2: 1, 9: 1, 61: 2}
        assert [tuple(row) for row in await stage.ask("funnel_times", steps=["a", "b"], bins=3)] == [
            (0, 30, 4),
            (30, 60, 0),
            (60, 90, 2),
        ]
        assert [tuple(row) for row in await stage.shop.funnel_times(["a", "b"], bins=1)] == [(0, 120, 6)]
        assert len(await stage.shop.funnel_times(["a", "c"])) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"from_step": 2},
        {"to_step": 3},
        {"from_step": 0},
        {"from_step": True},
        {"bins": 0},
        {"bins": 1000},
        {"bins": True},
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_invalid_arguments_of_funnel_times_are_refused(crowded, arguments):
    """The same for the histogram."""
    with pytest.raises(QueryRefused):
        await crowded.funnel_times(["a", "b"], **arguments)


@pytest.mark.parametrize(("count", "question"), [(20, {}), (10, {"compare": True, "by": "plan"})])
async def test_long_funnels_fit_into_the_sandbox(tmp_path, count, question):
    """Twenty steps, or ten with `compare` and `by`, stay within the sandbox's limits of text and memory."""
    events = [happened(f"step {at}", "ann", at, {"plan": "pro"}) for at in range(count)]
    bounds = {"start": from_us(START_US), "end": from_us(START_US + 60_000_000)}
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        steps = [f"step {at}" for at in range(count)]
        result = await stage.ask("funnel", steps=steps, order="strict", **bounds, **question)
        assert [row.people for row in result[:count]] == [1] * count
        assert [row.median_seconds for row in result[:count]] == [None] + [1.0] * (count - 1)
        assert not any(row.people for row in result[count:])


async def test_where_filters_events_and_cohort_filters_people(tmp_path):
    """Events outside `where` neither affect a strict order nor exclude; a cohort changes no result of its people."""
    quiet = {"device": "phone"}
    events = [happened("a", who, 1, quiet) for who in ("ann", "bob", "cy")]
    events += [happened("x", "ann", 2), happened("x", "bob", 2, quiet)]
    events += [happened("b", who, 3, quiet) for who in ("ann", "bob", "cy")] + [happened("vip", "ann", 9)]
    phone = "json_extract_string(properties, '$.device') = 'phone'"
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        for options in ({"order": "strict"}, {"exclude": ["x"]}):
            assert people(await rows_of(stage.shop, ["a", "b"], **options)) == [3, 1]
            assert people(await rows_of(stage.shop, ["a", "b"], where=phone, **options)) == [3, 2]
        await stage.shop.save_cohort("vips", {"did": "vip"})
        result = await stage.ask("funnel", steps=["a", "b"], cohort="vips", by="device")
        assert [(row.device, row.people) for row in result] == [("phone", 1), ("phone", 1)]
        assert people(await rows_of(stage.shop, ["a", "b"], cohort="vips", order="strict", where=phone)) == [1, 1]
        assert people(await rows_of(stage.shop, ["a", "b"], cohort="vips", order="strict")) == [1, 0]
