"""Any order of arrival of the same calls, in any batches, gives the same people, which are those of the rules."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from lakebed.events.batch import EventBatch
from lakebed.events.event import Event
from lakebed.events.validation import validate
from lakebed.identity.identity import Identity
from lakebed.identity.rules import Rules
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.storage import Storage
from tests.identity.plain_model import Call, people

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 1, tzinfo=UTC)
USERS = st.sampled_from(["u1", "u2", "u3", "both"])
ANONYMOUS = st.sampled_from(["a1", "a2", "a3", "both"])
CALLS = st.lists(
    st.builds(
        lambda at, kind, user, other, swapped, email, device: Call(
            at,
            "",
            kind,
            None if kind == "track" and user is None else user or "u1",
            (user if swapped and kind == "alias" else None) or other,
            email,
            device,
        ),
        st.integers(0, 5),
        st.sampled_from(["track", "identify", "identify", "alias"]),
        st.one_of(st.none(), USERS),
        st.one_of(ANONYMOUS, USERS),
        st.booleans(),
        st.one_of(st.none(), st.sampled_from(["x@example.com", "y@example.com"])),
        st.one_of(st.none(), st.sampled_from(["d1", "d2"])),
    ),
    max_size=14,
)


def event(call):
    """The event that a client sends for this call."""
    sent = Event(
        type=call.kind,
        event="e" if call.kind == "track" else None,
        user_id=call.user,
        message_id=call.message_id,
        timestamp=(START + timedelta(seconds=call.at)).isoformat(),
    )
    context = {"traits": {"email": call.email}} if call.email else {}
    context |= {"device": {"id": call.device}} if call.device else {}
    sent.context = Raw(msgspec.json.encode(context))
    if call.kind == "alias":
        sent.previous_id = call.other
    else:
        sent.anonymous_id = call.other
    validate(sent, int(START.timestamp() * 1e6))
    return sent


def table(calls):
    """The log of these calls in this order."""
    block = EventBatch.of([event(call) for call in calls])
    return pa.Table.from_batches([block.to_record_batch(block.message_ids, 0, int(START.timestamp() * 1e6))])


@pytest.fixture(scope="module")
def engine():
    engine = SqlEngine(threads=1, memory_bytes=100 << 20)
    yield engine
    engine.close()


async def told(engine, log, cuts, rules, path):
    """The people of a log that identity reads up to each of `cuts`, and then to its end."""

    async def read(start, end, _promoted):
        yield log.slice(start, end - start)

    async def ask(start, end, statements):
        return [engine.arrow(sql, events=log.slice(start, end - start)) for sql in statements]

    storage = Storage(path)
    await storage.open()
    identity = Identity(storage, read, ask, rules)
    await identity.open()
    for cut in [*sorted(cuts), log.num_rows]:
        await identity.catch_up(cut)
    mapping = await identity.mapping()
    past = [(cut, await identity.mapping_at(cut)) for cut in cuts]
    assert await identity.check(log.num_rows) == []
    await identity.close()
    await storage.close()
    return mapping, past


def changed(expected):
    """The identities that belong to a person with another id."""
    return {identity: person for identity, person in expected.items() if identity != person}


def as_dict(mapping):
    return dict(zip(mapping.table["identity"].to_pylist(), mapping.table["person_id"].to_pylist(), strict=True))


RULES = pytest.mark.parametrize(
    "rules",
    [
        Rules(),
        Rules(anonymous_limit=1),
        Rules(email=True),
        Rules(email=True, user_limit=2, devices=True),
        Rules(devices=True),
    ],
    ids=["plain", "limited", "emails", "everything", "devices"],
)


def wanted(rules):
    """The rules as arguments of the plain model."""
    return {
        "emails": rules.email,
        "devices": rules.devices,
        "user_limit": rules.user_limit,
        "anonymous_limit": rules.anonymous_limit,
    }


def permuted(engine, rules, calls, data):
    """In some order and some batches, the people are those of the plain model; at each cut, of its calls."""
    calls = [call._replace(message_id=f"m{number:02}") for number, call in enumerate(calls)]
    arrived = data.draw(st.permutations(calls))
    cuts = data.draw(st.lists(st.integers(0, len(calls)), max_size=3))
    if not calls:
        return
    with tempfile.TemporaryDirectory() as directory:
        mapping, past = asyncio.run(told(engine, table(arrived), cuts, rules, Path(directory) / "s.db"))
    assert as_dict(mapping) == changed(people(calls, **wanted(rules)))
    for cut, then in past:
        assert as_dict(then) == changed(people(arrived[:cut], **wanted(rules)))


@RULES
@settings(max_examples=15)
@given(calls=CALLS, data=st.data())
def test_any_order_gives_the_same_people(engine, rules, calls, data):
    """Permuted, and cut into batches anywhere, the people are those of the plain model; at each cut, of its calls."""
    permuted(engine, rules, calls, data)


@pytest.mark.slow
@RULES
@settings(max_examples=200)
@given(calls=CALLS, data=st.data())
def test_any_order_gives_the_same_people_at_length(engine, rules, calls, data):
    """The same with more examples."""
    permuted(engine, rules, calls, data)


@RULES
@pytest.mark.parametrize("near", [0, 1_000], ids=["from all edges", "back from now"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS, data=st.data())
def test_small_windows_and_both_computations_of_the_past(monkeypatch, engine, rules, near, calls, data):
    """With small windows and commits, and either computation of the past, the people are the same."""
    for name, value in {"FEW": 1, "MANY": 6, "WINDOW": 4, "LINKING": 2, "PIECE": 2}.items():
        monkeypatch.setattr(f"lakebed.identity.identity._{name}", value)
    for name, value in {"NEAR": near, "PIECE": 1}.items():
        monkeypatch.setattr(f"lakebed.identity.history._{name}", value)
    calls = [call._replace(message_id=f"m{number:02}") for number, call in enumerate(data.draw(st.permutations(calls)))]
    if not calls:
        return
    cuts = data.draw(st.lists(st.integers(0, len(calls)), min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as directory:
        mapping, past = asyncio.run(told(engine, table(calls), cuts, rules, Path(directory) / "s.db"))
    assert as_dict(mapping) == changed(people(calls, **wanted(rules)))
    for cut, then in past:
        assert as_dict(then) == changed(people(calls[:cut], **wanted(rules)))


@pytest.mark.parametrize("near", [0, 1_000], ids=["from all edges", "back from now"])
def test_a_claim_counts_until_a_later_event_refuses_it(monkeypatch, engine, tmp_path, near):
    """A later event refuses a claim by making the other id a user. Before that event the claim counts."""
    monkeypatch.setattr("lakebed.identity.history._NEAR", near)
    calls = [Call(0, "m0", "identify", "u1", "both"), Call(1, "m1", "track", "both", "a1")]
    mapping, past = asyncio.run(told(engine, table(calls), [1], Rules(), tmp_path / "s.db"))
    assert as_dict(mapping) == {}
    assert [as_dict(then) for _, then in past] == [{"both": "u1"}]
