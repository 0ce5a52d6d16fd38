"""timeline against a plain list."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, QueryRefused
from lakebed.clock import to_us
from tests.reports.report_cases import PAIRS, START_US, happened, identified, stages

pytestmark = pytest.mark.integration


@st.composite
def streams(draw):
    """Events of few ids at few times, some equal, and visitors who are identified later."""
    times = st.integers(0, 5)
    tracked = st.builds(
        happened, st.sampled_from(["home", "pay"]), st.sampled_from(["ann", "bob", "?p1", "?p2", None]), times
    )
    identifies = st.builds(identified, st.sampled_from(["ann", "bob"]), st.sampled_from(["?p1", "?p2"]), times)
    return draw(st.lists(st.one_of(tracked, tracked, identifies), min_size=1, max_size=30))


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(), who=st.sampled_from(["ann", "bob", "?p1"]), size=st.integers(1, 4), states=st.sampled_from(PAIRS)
)
async def test_pages_of_a_timeline_have_every_event_once(tmp_path_factory, events, who, size, states):
    """All events of all ids of the person, newest first, none twice and none left out, in any state of an object."""
    root = tmp_path_factory.mktemp("timeline")
    async for stage in stages(root, events, merges=(("ann", "bob"),), only=states, untrusted=()):
        own = {item["messageId"]: item["userId"] or item["anonymousId"] for item in _sent(events)}
        persons = {event.person for event in stage.events if own[f"m{event.seq:06}"] == who}
        expected = sorted(((event.us, event.seq) for event in stage.events if event.person in persons), reverse=True)
        result, last = [], None
        while page := (await stage.ask("timeline", person=who, limit=size, before=last)).rows:
            result += [(to_us(row.timestamp), row.seq) for row in page]
            last = page[-1].seq
            assert len(result) <= len(expected)
        assert result == expected, stage.name


def _sent(events):
    return [event | {"messageId": f"m{number:06}"} for number, event in enumerate(events)]


async def test_a_row_has_the_event_as_it_was_sent(tmp_path):
    """A row has all fields of its event, with a range and a condition; the sandbox gives the same."""
    events = [
        happened("home", "ann", 0, {"page": "/"}, session="s"),
        happened("pay", "ann", 1),
        happened("pay", "bob", 1),
    ]
    async for stage in stages(tmp_path, events, only=("both tiers",)):
        (row,) = await stage.ask("timeline", person="ann", end="2026-01-05T00:00:01Z", where="event <> 'x'")
        assert (row.seq, to_us(row.timestamp), row.type, row.event) == (0, START_US, "track", "home")
        assert (row.user_id, row.anonymous_id, row.session_id) == ("ann", None, "s")
        assert msgspec.json.decode(row.properties) == {"page": "/"}
        assert not await stage.ask("timeline", person="nobody")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [({"person": ""}, "user id"), ({"person": "a", "limit": 0}, "1 to"), ({"person": "a", "before": -1}, "last row")],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.timeline(**arguments)
