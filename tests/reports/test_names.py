"""Properties whose names are also names in the SQL of reports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lakebed import Analytics, ManualClock
from tests.reports.report_samples import COHORTS, EVENTS, SAMPLES

OURS = (
    *("i", "n", "nth", "k", "a", "b", "c", "us", "at", "one", "other", "key", "value", "name", "time", "day", "hour"),
    *("count", "weight", "person", "people", "periods", "seen", "each", "ms", "failed", "moment", "visit", "place"),
    *("step", "depth", "begun", "t1", "is_1", "key_0", "value_0", "low", "high", "entry", "groups", "traits", "ids"),
)


@pytest.fixture
async def plain(tmp_path):
    clock = ManualClock(datetime(2026, 2, 1, tzinfo=UTC))
    async with Analytics("plain", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        yield shop
        assert await shop.check() == []


def _events():
    """The sample events with a property for each name in our SQL."""
    extra = {name: f"{name} of {at % 3}" for at, name in enumerate(OURS)}
    return [event | {"properties": event["properties"] | extra} for event in EVENTS]


async def _answers(shop):
    await shop.batch(_events())
    await shop.identify("a", {"one": 1, "key": 2})
    for name, definition in (COHORTS | {"named": {"trait": "key", "is": 2}}).items():
        await shop.save_cohort(name, definition)
    answers = {name: (await getattr(shop, name)(**question)).rows for name, question in SAMPLES.items()}
    answers["stickiness by week"] = (await shop.stickiness(interval="week")).rows
    answers["anomalies of raw events"] = (await shop.anomalies(**SAMPLES["anomalies"], where="true")).rows
    answers["traits"] = (await shop.query("SELECT person_id, traits FROM people ORDER BY 1")).rows
    return answers | {"cohort": (await shop.cohort_people("named")).rows}


@pytest.mark.integration
async def test_promoted_columns_do_not_clash_with_those_of_reports(plain, tmp_path):
    """Promoting properties with names of our SQL changes no result."""
    promote = dict.fromkeys(OURS, str)
    async with Analytics("odd", root=tmp_path, clock=plain.clock, headroom_bytes=0, promote=promote) as odd:
        assert await _answers(odd) == await _answers(plain)
        assert await odd.check() == []


@pytest.mark.parametrize(
    ("report", "names"),
    [
        ("performance", ["ms", "failed", "satisfied", "Tolerating"]),
        ("errors", ["person", "moment", "Failed", "key_1"]),
        ("segmentation", ["n", "Nth", "key_0"]),
    ],
)
async def test_by_may_have_the_name_of_a_column_of_reports(plain, report, names):
    """A property gives the same rows, whatever its name is."""
    named = [event["properties"] | dict.fromkeys(names, event["properties"]["plan"]) for event in EVENTS]
    await plain.batch([event | {"properties": properties} for event, properties in zip(EVENTS, named, strict=True)])
    expected = (await getattr(plain, report)(by=["plan"])).rows
    for name in names:
        result = await getattr(plain, report)(by=[name])
        assert (name in result.columns, [tuple(row) for row in result]) == (True, [tuple(row) for row in expected])
