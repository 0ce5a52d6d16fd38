"""The dialect over one object in every state, now and as of an earlier time."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed.clock import from_us
from lakebed.query.dialects.analytics_engine.answer import EngineAnswer, encoded
from lakebed.query.dialects.analytics_engine.dataset import Dataset, unmapped
from lakebed.query.dialects.analytics_engine.translation import translate
from tests.query.dialects.analytics_engine.grammar import UNIQUE, same, statements
from tests.reports.report_cases import NAMES, PAIRS, happened, identified, stages

pytestmark = pytest.mark.integration

MAPPING = {"event": "hit", "index1": "person_id", "blobs": ["plan", "n"], "doubles": ["amount", "size", "n"]}
PEOPLE = ["ann", "bob", "?p1", None]
MERGES = (("ann", "bob"),)


@st.composite
def streams(draw):
    """Events that are mapped, data points, and others; some values are texts or are missing."""
    plan = st.sampled_from(["pro", "GET", "Über", 7, True, None])
    amount = st.sampled_from([None, 1, 2.5, "7", "x", "nan", -3, False])
    at = st.integers(0, 4 * 172_800).map(lambda quarter: quarter / 2)
    mapped = st.builds(
        lambda name, who, when, blob, number, size: (name, who, when, {"plan": blob, "amount": number, "size": size}),
        *(st.sampled_from(["hit", "hit", "other"]), st.sampled_from(PEOPLE), at, plan, amount, st.integers(0, 9)),
    )
    texts = st.lists(st.sampled_from(["a", "GET", "", "it's"]), max_size=2)
    point = st.builds(
        lambda index, when, blobs, number: (
            "points",
            None,
            when,
            {"indexes": index, "blobs": blobs, "doubles": [number]},
        ),
        *(texts.map(lambda values: values[:1]), at, texts, st.integers(-9, 9).map(lambda n: n / 2)),
    )
    identities = st.builds(identified, st.just("ann"), st.just("?p1"), st.integers(0, 86_400))
    drawn = draw(st.lists(st.one_of(mapped, mapped, mapped, point, identities), min_size=1, max_size=30))
    events = []
    for n, item in enumerate(drawn):
        if isinstance(item, dict):
            events.append(item)
            continue
        name, who, when, properties = item
        if name == "points":
            properties["doubles"] += [0, n]
        events.append(happened(name, who, when, properties | {"n": n}))
    return events


def rows(events, dataset):
    """The rows of a dataset, computed in plain Python."""
    result = []
    for event in events:
        if event.event != ("hit" if dataset == "mapped" else "points"):
            continue
        at = from_us(event.us).replace(microsecond=0, tzinfo=None)
        properties = event.properties
        if dataset == "mapped":
            texts, numbers = (
                [event.person, properties["plan"], properties["n"]],
                [properties["amount"], properties["size"], properties["n"]],
            )
        else:
            texts = [*(properties["indexes"] or [None]), *(*properties["blobs"], None, None)[:2]]
            numbers = properties["doubles"]
        values = dict(zip(("index1", "blob1", "blob2"), map(text, texts), strict=True))
        values |= dict(zip(("double1", "double2", UNIQUE), map(number, numbers), strict=True))
        result.append({"timestamp": at, **values})
    return result


def text(value):
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def number(value):
    """A JSON number or a text of a finite one; else 0."""
    if isinstance(value, bool) or value in (None, "x", "nan"):
        return 0.0
    return float(value)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    dataset=st.sampled_from(["mapped", "mapped", "points"]),
    statement=statements(),
    states=st.sampled_from(PAIRS),
)
async def test_answers_equal_plain_python_in_any_state(tmp_path_factory, events, dataset, statement, states):
    """Statements over mapped events and over data points; people are those of the moment."""
    translated = translate(statement.sql, from_us(0))
    if dataset == "mapped":
        table = Dataset.of(MAPPING).sql(dataset, (), translated.columns)
    else:
        table = unmapped(dataset, translated.columns)
    async for stage in stages(tmp_path_factory.mktemp("dialect"), events, merges=MERGES, only=states, untrusted=()):
        result = await stage.shop.query(translated.over(table), as_of=stage.as_of)
        actual = json.loads(encoded(EngineAnswer("JSON", result.arrow())))["data"]
        expected = statement.answer(rows(stage.events, dataset))
        actual = [list(row.values()) for row in actual]
        assert same(actual, expected, is_ordered=statement.is_ordered), f"{stage.name}: {statement.sql}"


SIZES = (1, "7", "x", "nan", None, True)
EVENTS = [
    happened("hit", who, 3600 * n, {"plan": f"p{n % 3}", "amount": n / 2, "size": SIZES[n % 6], "n": n})
    for n, who in enumerate(["ann", "bob", "?p1", "bob", "?p1", "ann"] * 3)
]
EVENTS.insert(10, identified("ann", "?p1", 5))


async def test_the_verb_itself_in_every_state(tmp_path):
    """`analytics_engine` answers by the mapping and the people of the moment, and `now()` is the moment; a promoted
    property gives the same answer as one that is not."""
    sql = """
        SELECT index1, blob1 AS plan, count() AS n, sum(double1), sum(double2), max(timestamp), now() FROM hits
        WHERE timestamp < now() GROUP BY index1, plan HAVING n > 0 ORDER BY index1, plan FORMAT JSON
    """
    seen = []
    async for stage in stages(tmp_path, EVENTS, merges=MERGES, untrusted=(), promote={"amount": float}):
        if stage.name == "log":
            await stage.shop.save_dataset("hits", MAPPING)
        if stage.name == "unmerged":
            await stage.shop.save_dataset("hits", MAPPING | {"index1": "plan", "blobs": []})
        now = (stage.as_of or from_us(stage.shop.clock.now_us())).replace(microsecond=0, tzinfo=None)
        groups = defaultdict(list)
        for row in rows(stage.events, "mapped"):
            groups[(row["blob1"], "") if stage.name == "unmerged" else (row["index1"], row["blob1"])].append(row)
        expected = []
        for key, group in sorted(groups.items()):
            first, second, times = zip(
                *((row["double1"], row["double2"], row["timestamp"]) for row in group), strict=True
            )
            expected.append([*key, len(group), sum(first), sum(second), max(times), now])
        answer = json.loads(encoded(await stage.shop.analytics_engine(sql, as_of=stage.as_of)))["data"]
        assert same([list(row.values()) for row in answer], expected, is_ordered=True), stage.name
        seen.append(stage.name)
    assert tuple(seen) == NAMES
