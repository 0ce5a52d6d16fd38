"""`validate_batch`, column by column, gives the same events as `validate` for each event."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.errors import InvalidEvent
from lakebed.events.batch import EventBatch
from lakebed.events.batch_validation import validate_batch
from lakebed.events.decoding import DecodedBatch, Rejected, decode_batch, decode_items
from lakebed.events.event import Event
from tests.events.test_validation import ACCEPTED, REFUSED
from tests.tiers.pipeline.logs import NOW

SECOND = timedelta(seconds=1, microseconds=1)
COMPANY = [{"event": f"e{i}", "messageId": f"m{i}", "userId": "u"} for i in range(30)]


def rows(batch):
    """A batch as plain rows, with rejected items at their positions."""
    taken = iter([row for part in batch.parts for row in block_rows(EventBatch.joined([part]))])
    return [batch.rejected.get(at) or next(taken) for at in range(len(batch))]


def block_rows(block):
    ids = [message_id if message_id is not None else "given" for message_id in block.message_ids]
    table = block.to_record_batch(ids, 0, NOW).to_pylist()
    return [
        row | {"name": name, "person": person}
        for row, name, person in zip(table, block.names, block.people, strict=True)
    ]


def outcome(decode, body):
    try:
        return rows(decode(body))
    except InvalidEvent as error:
        return str(error)


def both(body, source=None):
    """The outcomes of a body decoded by columns and decoded one by one."""
    return (
        outcome(lambda data: decode_batch(data, NOW, source=source), body),
        outcome(lambda data: DecodedBatch.of(decode_items(data, NOW, source=source)), body),
    )


def by_columns(items, **options):
    return validate_batch(msgspec.json.decode(msgspec.json.encode(items), type=list[Event]), NOW, **options)


@pytest.mark.parametrize("item", [*ACCEPTED, *(item for item, _ in REFUSED)])
def test_an_event_in_a_batch_has_the_limits_of_a_single_one(item):
    """At a limit and beyond it, an event is accepted or rejected in a batch as alone, with the same reason."""
    body = msgspec.json.encode([*COMPANY, item, *COMPANY])
    columns, each = both(body)
    assert columns == each


@pytest.mark.parametrize("item", [item for item, _ in REFUSED])
def test_a_batch_with_one_bad_event_is_not_validated_by_columns(item):
    """A batch with one invalid event is not accepted by columns."""
    assert by_columns([*COMPANY, item]) is None


@pytest.mark.parametrize(
    "item",
    [
        {"event": "e", "properties": {"id": "4e912f3e-0000-11e4-9e77-0e000b3c2a1f"}},
        {"event": "e", "properties": {"big": 1e300, "long": 10**199, "long text": "0" * 5000}},
        {"event": "e", "context": {"text": "\x1f{[" * 10, "page": {"url": "x"}}},
        {"event": "e", "timestamp": "2026-01-01T00:00:00.123456+05:30", "sentAt": "2026-01-01T00:00:01Z"},
        {"type": "identify", "userId": "u", "traits": {"a": 1}},
        {"type": "page", "category": "c"},
    ],
)
def test_a_valid_batch_is_validated_by_columns(item):
    """Real events are accepted by columns, also those that only look unusual."""
    block = by_columns([*COMPANY, item])
    assert block is not None
    assert len(block) == 31


@pytest.mark.parametrize("number", ["1e309", "-1e+309", "1E400", "1" * 5000, "2" + "0" * 308 + ".5", "1" * 290 + "e99"])
@pytest.mark.parametrize(("kind", "field"), [("page", "properties"), ("track", "context"), ("identify", "traits")])
def test_a_number_that_overflows_a_float_is_refused(number, kind, field):
    """The event is rejected if the number is in a stored object, and accepted if the field is not stored."""
    fields = '"event":"e","category":"c","userId":"u","messageId":"bad"'
    bad = f'{{"type":"{kind}",{fields},"{field}":{{"a":[{number}]}}}}'
    body = "[" + ",".join([*map(json.dumps, COMPANY), bad, bad.replace(field, "unknown")]) + "]"
    columns, each = both(body.encode())
    assert columns == each
    assert [isinstance(result, Rejected) for result in columns[-2:]] == [True, False]


def test_depth_is_counted_for_each_event():
    """Brackets are counted for each event, those in texts too; over the limit the exact depth is computed."""
    deep = {"event": "deep", "properties": {"}": json.loads("[" * 32 + "]" * 32)}}
    shallow = {"event": "shallow", "properties": {"a": "{" * 500, "b": "}" * 500}}
    columns, each = both(msgspec.json.encode([*COMPANY, deep, shallow]))
    assert columns == each
    assert "nested 33 deep" in columns[-2].reason
    assert columns[-1]["event"] == "shallow"


TEXT = st.text(max_size=6) | st.sampled_from(
    ["", " ", "x" * 100, "x" * 101, "ü" * 200, "x" * 201, "x" * 256, "ü" * 257]
)
ID = st.none() | TEXT | st.integers(-(2**70), 2**70)
MOMENTS = st.integers(-719_000 * 86_400, 1_770_000_000).map(lambda at: datetime(1970, 1, 1, tzinfo=UTC) + at * SECOND)
FORMS = """2026-01-01  2026-01-01T00Z  2026-01-01T00:00:00.1234567Z  2026-01-01T00:00:00.123456789+01:00
20260101T000000Z  2026-01-01 00:00:00Z  2026-01-01T24:00:00Z  2016-12-31T23:59:60Z  2026-02-29T00:00:00Z
0000-01-01  now  2026-W01-1
0001-01-01T00:00:00+01:00  9999-12-31T23:59:59Z  2026-01-01T00:00:00z  2026-01-01t00:00:00Z  +2026-01-01T00:00:00Z
2026-01-01T00:00:00 Z  2026-01-01T00:00:00+0530  2026-01-01T00:00:00+05  2026-01-01T00:00:00-00:00  2026-01-01T00:00Z
2026-01-01T00:00:00,5Z  2026-01-01T00:00:00.Z  2026-01-01T00:00:00+24:00"""
TIMES = (
    MOMENTS.map(lambda at: at.isoformat().replace("+00:00", "Z"))
    | st.builds(
        lambda at, minutes: at.astimezone(timezone(timedelta(minutes=minutes))).isoformat(),
        MOMENTS,
        st.integers(-1439, 1439),
    )
    | MOMENTS.map(lambda at: at.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds"))
    | st.sampled_from([*re.split(r"  |\n", FORMS), "", " ", " 2026-01-01T00:00:00Z"])
    | st.integers(-(10**16), 10**16)
    | st.floats(-1e16, 1e16)
)
OBJECTS = st.none() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = ("event", "name", "category", "messageId", "source")
ITEMS = st.fixed_dictionaries(
    {"event": TEXT},
    optional={
        "type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias", "other"]),
        **dict.fromkeys(NAMES[1:], st.none() | TEXT),
        **dict.fromkeys(("userId", "anonymousId", "groupId", "sessionId", "previousId"), ID),
        **dict.fromkeys(("timestamp", "originalTimestamp", "sentAt"), st.none() | TIMES),
        **dict.fromkeys(("properties", "traits", "context"), OBJECTS),
    },
)


@settings(max_examples=150)
@given(item=ITEMS, sent_at=st.none() | TIMES, form=st.integers(0, 2), source=st.none() | st.just("http"))
def test_column_validation_equals_single_validation(item, sent_at, form, source):
    """For any event among others, in an array, an envelope or NDJSON, rows and rejections are the same."""
    items = [msgspec.json.encode(value) for value in [*COMPANY, item]]
    sent = b"" if sent_at is None else b',"sentAt":' + msgspec.json.encode(sent_at)
    body = [b"[%s]" % b",".join(items), b'{"batch":[%s]%s}' % (b",".join(items), sent), b"\n".join(items)][form]
    columns, each = both(body, source)
    assert columns == each


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 20), st.binary(max_size=6)), min_size=1, max_size=3))
def test_column_validation_of_damaged_bodies_equals_single_validation(changes):
    """Bodies with changed bytes are accepted or rejected the same way, by columns and one by one."""
    body = msgspec.json.encode({"batch": COMPANY})
    for start, length, new in changes:
        body = body[:start] + new + body[start + length :]
    columns, each = both(body)
    assert columns == each


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3), max_size=6), st.data())
def test_parts_of_a_batch_are_joined_in_order(sizes, data):
    """Blocks and lists of events, in any mix, become one block of the same events in the same order."""
    number, parts, expected = 0, [], []
    for size in sizes:
        ids = [f"m{number + i}" for i in range(size)]
        number += size
        made = [Event(event=name, message_id=name, timestamp=None) for name in ids]
        if size and data.draw(st.booleans()):
            parts.append(EventBatch.of(made))
        else:
            parts.append(made)
        expected += ids
    if expected:
        joined = EventBatch.joined(parts)
        assert list(joined.message_ids) == expected
        assert [row["event"] for row in block_rows(joined)] == expected == list(joined.names)
        chosen = list(range(0, len(expected), 2))
        assert [row["event"] for row in block_rows(joined.take(chosen))] == expected[::2]
