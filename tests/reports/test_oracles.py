"""Every report against plain Python, over real events and made-up ones, in every state of an object."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed.clock import to_us
from lakebed.reports.reports import REPORTS
from tests.reports import real_data
from tests.reports.made_up import MadeUp
from tests.reports.oracles import ORACLES, plain
from tests.reports.questions import ORDERS, REQUESTS, STATES
from tests.reports.report_cases import NAMES, Seen, stages

pytestmark = pytest.mark.integration

MERGES = [("14911.0", "17850.0"), ("13081.0", "12431.0"), ("12583.0", "13047.0")]
OPERATORS = "SELECT seq, epoch_us(timestamp) AS us, type, properties FROM events WHERE source = 'lakebed:operator'"
SETTINGS = {
    "derandomize": True,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


def same(rows, expected):
    """Assert equal rows except for the last digits of floats: sums are added in another order."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row == tuple(
            pytest.approx(value, rel=1e-9, abs=2e-6) if isinstance(value, float) else value for value in other
        )


def named(definition: Any) -> str:
    """The name under which a cohort is saved."""
    return msgspec.json.encode(definition).decode()


async def agree(stage, questions):
    """Assert that each report equals plain Python. Returns the reports that had rows."""
    # Saving writes an event, which must not come between the others; as of an earlier moment nothing was saved.
    knows = stage.as_of is None and stage.name not in ("log", "archived")
    definitions = [options["cohort"] for _, options in questions if "cohort" in options] if knows else []
    for name, definition in {named(cohort): cohort for cohort in definitions}.items():
        await stage.shop.save_cohort(name, definition)
    saved = [
        Seen(row.seq, row.us, None, None, msgspec.json.decode(row.properties), None, row.type, None, None)
        for row in await stage.shop.query(OPERATORS, as_of=stage.as_of)
    ]
    now_us, filled = stage.shop.clock.now_us() if stage.as_of is None else to_us(stage.as_of), set()
    for report, question in questions:
        arguments = dict(question)
        if report == "timeline":
            known = [
                event.person
                for event in stage.events
                if event.person and event.person == (event.user or event.anonymous)
            ]
            arguments.setdefault("person", max(known, default="nobody"))
        own = dict(arguments)
        if "cohort" in own:
            if not knows:
                continue
            own["cohort"] = named(own["cohort"])
        rows = [tuple(row) for row in await stage.ask(report, **own)]
        rows = [row[:6] for row in rows] if report == "anomalies" else rows  # the seventh column is text
        expected = plain(report, [*stage.events, *saved], now_us, **arguments)
        try:
            same(rows, expected)
        except AssertionError as error:
            raise AssertionError(f"{stage.name}: {report} {arguments}") from error
        filled |= {report} if expected else set()
    return filled


def flat(questions):
    return [(report, own) for report, several in questions.items() for own in several]


EACH = pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.slow)])


async def agree_in_turn(states, questions, each):
    """Each state is asked one of `each` questions, the next ones in turn. Every report has rows in some state."""
    filled, number = set(), 0
    async for stage in states:
        having_rows = await agree(stage, flat(questions)[number % each :: each])
        assert each > 1 or stage.as_of is not None or having_rows == questions.keys(), stage.name
        filled |= having_rows
        number += 1
    assert filled == questions.keys()


@EACH
async def test_orders_of_a_shop_equal_the_oracles(tmp_path, each):
    """2,025 real orders: in every tier, before and after merges, and as of a moment."""
    options = {"only": STATES, "untrusted": (), "each": 500, "segment_events": 400}
    await agree_in_turn(stages(tmp_path, real_data.orders(), merges=MERGES, **options), ORDERS, each)


@EACH
async def test_requests_of_a_web_server_equal_the_oracles(tmp_path, each):
    """5,000 real requests: their sizes, failures and visitors."""
    options = {"only": STATES, "untrusted": (), "each": 1_000, "segment_events": 900}
    await agree_in_turn(stages(tmp_path, real_data.requests(), **options), REQUESTS, each)


@settings(max_examples=4, **SETTINGS)
@given(rng=st.randoms(use_true_random=False), state=st.sampled_from(NAMES))
async def test_made_up_events_equal_the_oracles(tmp_path_factory, rng, state):
    """Any report over any events, in any state."""
    made = MadeUp(rng)
    root = tmp_path_factory.mktemp("made_up")
    async for stage in stages(root, made.events, merges=made.merges, only=(state,), untrusted=()):
        await agree(stage, made.questions().items())


@pytest.mark.slow
@settings(max_examples=25, **SETTINGS)
@given(seed=st.integers(0, 2**32), people=st.sampled_from([2, 4, 40]))
async def test_made_up_events_in_every_state_equal_the_oracles(tmp_path_factory, seed, people):
    """The same with more examples: few people and many, in one state after the other."""
    made = MadeUp(Random(seed), people=people, maximum=10 * people)
    async for stage in stages(tmp_path_factory.mktemp("made_up"), made.events, merges=made.merges, untrusted=()):
        await agree(stage, made.questions().items())


def test_every_report_has_an_oracle_and_questions():
    """Each report has a function in plain Python, and is run over real events and made-up ones."""
    made = MadeUp(Random(1)).questions()
    assert REPORTS.keys() == ORACLES.keys() == made.keys() == (ORDERS | REQUESTS).keys()
