import pytest

from tests.reports.report_cases import NAMES, happened, identified, stages

pytestmark = pytest.mark.integration

EVENTS = [
    happened("a", "ann", 1),
    happened("a", "?x", 2, {"n": 1}),
    happened("a", "?y", 2),
    happened("b", None, 3),
    identified("ann", "?y", 9),
    happened("b", "bob", 3, session="s"),
    identified("bob", "?x", 5),
    identified("ann", "?x", 6),
    happened("c", "?x", 4),
]
SQL = "SELECT seq, event, person_id FROM events WHERE source IS DISTINCT FROM 'lakebed:operator' ORDER BY seq"


async def test_each_stage_has_its_events_and_tiers(tmp_path):
    """In each stage the object has the events and people of the plain list; the tiers differ."""
    tiers = {}
    async for stage in stages(tmp_path, EVENTS, merges=[("bob", "ann")], segment_events=3):
        result = await stage.shop.query(SQL, as_of=stage.as_of)
        assert [tuple(row) for row in result] == [(event.seq, event.event, event.person) for event in stage.events], (
            stage.name
        )
        tiers[stage.name] = result.tiers
    assert tuple(tiers) == NAMES
    assert (tiers["log"], tiers["archived"], tiers["both tiers"]) == (("L1",), ("L3",), ("L1", "L3"))
