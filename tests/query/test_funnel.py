"""Funnels against a plain model of their definition, and against chDB."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import funnels
import pytest
from funnels import Plain
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import START_US, happened, identified, stages

from lakebed.clock import from_us, to_us

# A step as the report takes it, and as the model does. The model knows equal steps by their identity.
NAMED = {name: lambda one, name=name: one.event == name for name in "abcx"}
PAID = ({"event": ["a", "b"], "where": "json_extract_string(properties, '$.paid') = 'yes'"},)
CHOICES = [
    *((name, NAMED[name]) for name in "abc"),
    ({"event": ["a", "b"], "where": "properties->>'$.paid' = 'yes'", "label": "paid"},
     lambda one: one.event in ("a", "b") and one.properties.get("paid") == "yes"),
    ({"where": "type = 'identify'", "label": "signed up"}, lambda one: one.type == "identify"),
]  # fmt: skip


def compared(rows):
    """Rows whose floats can be compared: a median of two is exact to a microsecond."""
    return [tuple(round(one, 6) if isinstance(one, float) else one for one in row) for row in rows]


def label(step):
    return step if isinstance(step, str) else step["label"]


@st.composite
def questions(draw):
    """Arguments of a funnel, and the same for the model."""
    chosen = draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4))
    order = draw(st.sampled_from(["ordered", "ordered", "strict", "any"]))
    start, end = sorted(draw(st.lists(st.integers(0, 30), min_size=2, max_size=2)))
    bounded = draw(st.booleans())
    arguments = {
        "steps": [step for step, _ in chosen],
        "within": draw(st.sampled_from([1, 3, 7, 100])),
        "order": order,
        "allow_equal": draw(st.booleans()),
    }
    plain = Plain([meant for _, meant in chosen], arguments["within"] * 1_000_000, order, arguments["allow_equal"])
    if bounded:
        low, high = START_US + start * 1_000_000, START_US + end * 1_000_000
        arguments |= {"start": from_us(low), "end": from_us(high)}
        plain = plain._replace(start_us=low, end_us=high)
    if order == "ordered" and len(chosen) > 1 and draw(st.booleans()):
        first = draw(st.integers(1, len(chosen) - 1))
        last = draw(st.integers(first + 1, len(chosen)))
        name = draw(st.sampled_from("xxab"))
        arguments["exclude"] = [{"event": name, "between": [first, last]}]
        plain = plain._replace(excluded=((NAMED[name], first, last),))
    return arguments, plain


PEOPLE = ["ann", "bob", "cy", "?1", "?2", None]
EVENTS = st.lists(
    st.one_of(
        st.builds(
            happened,
            st.sampled_from("aabbcx"),
            st.sampled_from(PEOPLE),
            st.integers(0, 30),
            st.sampled_from([{}, {"paid": "yes"}]),
        ),
        st.builds(identified, st.sampled_from(PEOPLE[:3]), st.sampled_from(PEOPLE[3:5]), st.integers(0, 30)),
    ),
    min_size=6,
    max_size=60,
)


async def compare(stage, asked):
    for arguments, plain in asked:
        labels = [label(step) for step in arguments["steps"]]
        if arguments["order"] == "any":
            labels = [f"any {at} of {len(labels)}" for at in range(1, len(labels) + 1)]
        found = await stage.ask("funnel", **arguments)
        assert compared(found) == compared(funnels.rows(plain, stage.events, labels)), (stage.name, arguments)


async def follow(events, asked, **options):
    used = {event["userId"] for event in events}
    merges = [("ann", "bob")] if {"ann", "bob"} <= used else []
    with TemporaryDirectory() as root:
        async for stage in stages(Path(root), events, merges=merges, untrusted=(), **options):
            await compare(stage, asked)


@settings(max_examples=8, derandomize=True)
@given(events=EVENTS, asked=st.lists(questions(), min_size=4, max_size=4))
async def test_a_funnel_is_what_its_definition_says(events, asked):
    """Any funnel over any events is what the plain model says, before and after merges, and as of before them."""
    await follow(events, asked, only=("merged", "as of the first half"))


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(events=EVENTS, asked=st.lists(questions(), min_size=6, max_size=6))
async def test_a_funnel_is_what_its_definition_says_in_every_state(events, asked):
    """The same in every state of an object, at length."""
    await follow(events, asked)


@pytest.fixture(scope="module")
def crowd():
    """Events of 300 people with few moments, so that much happens at once."""
    rng = random.Random(4)
    return [
        happened(
            rng.choice("aabbccx"),
            f"{rng.choice('?u')}{rng.randrange(300)}",
            rng.randrange(25),
            {"paid": rng.choice(["yes", "no"])},
        )
        for _ in range(4_000)
    ]


async def test_each_person_comes_as_far_as_the_definition_says(tmp_path, crowd):
    """Of 300 people, each one's furthest step and times are the plain model's, for funnels of every kind."""
    paid = CHOICES[3]
    kinds = [
        {"order": order, "allow_equal": equal} for order in ("ordered", "strict", "any") for equal in (False, True)
    ]
    async for stage in stages(tmp_path, crowd, only=("both tiers",)):
        for kind in kinds:
            for number, chosen in enumerate(([*CHOICES[:3]], [CHOICES[0], CHOICES[0], paid, CHOICES[1]])):
                arguments = {"steps": [step for step, _ in chosen], "within": 6, **kind}
                plain = Plain([meant for _, meant in chosen], 6_000_000, **kind)
                if kind["order"] == "ordered":
                    arguments["exclude"] = ["x"] if number else [{"event": "x", "between": [2, 3]}]
                    plain = plain._replace(excluded=((NAMED["x"], 1, 4) if number else (NAMED["x"], 2, 3),))
                    arguments |= {"start": from_us(START_US + 3_000_000), "end": from_us(START_US + 15_000_000)}
                    plain = plain._replace(start_us=START_US + 3_000_000, end_us=START_US + 15_000_000)
                found = await stage.shop.funnel_people(**arguments, step=1, outcome="converted", limit=10_000)
                times = {person: one.times for person, one in funnels.attempts(plain, stage.events).items()}
                assert {row.person_id: (row.step, to_us(row.began), to_us(row.reached)) for row in found} == {
                    person: (len(one), one[0], one[-1]) for person, one in times.items()
                }, arguments
                assert len(times) > 100, arguments
