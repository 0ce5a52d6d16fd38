import dataclasses
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pytest

from lakebed.clock import to_us
from lakebed.errors import InvalidEvent
from lakebed.events.batch import EventBatch
from lakebed.events.decoding import Rejected, decode_items, decode_mappings
from lakebed.events.event import SCHEMA, Event
from lakebed.events.validation import encode_object, from_call, validate
from tests.tiers.pipeline.logs import NOW

DAY = 86_400_000_000


def by_json(item):
    return decode_items(msgspec.json.encode([item]), NOW)[0]


def by_mapping(item):
    return decode_mappings([item], NOW)[0]


def by_event(item):
    fields = {key: value for key, value in item.items() if key not in ("properties", "context", "traits")}
    objects = {key: encode_object(key, item[key]) for key in ("properties", "context", "traits") if key in item}
    event = Event(**{_snake(key): value for key, value in fields.items()}, **objects)
    try:
        validate(event, NOW)
    except InvalidEvent as error:
        return Rejected(error.reason)
    return event


def _snake(name):
    return dict(zip(Event.__struct_encode_fields__, Event.__struct_fields__, strict=True)).get(name, name)


@pytest.fixture(params=[by_json, by_mapping, by_event])
def take(request):
    """The three inputs of validation: JSON bytes, mappings, and the struct that `track` makes."""
    return request.param


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def sized(total):
    """A track event named "e" whose properties and context have `total` bytes with the name."""
    return {"event": "e", "properties": {"a": "x" * (total - len('{"a":""}') - len("{}") - len("e"))}}


ACCEPTED = [
    {"event": "x" * 200},
    {"event": "ü" * 200},
    {"event": " x "},
    {"event": "e", "userId": "x" * 256, "anonymousId": "x" * 256, "groupId": "x" * 256, "sessionId": "x" * 256},
    {"event": "e", "userId": 7},
    {"event": "e", "messageId": "x" * 100},
    {"event": "e", "source": "x" * 256},
    {"event": "e", "properties": nested(32)},
    {"event": "e", "context": nested(32)},
    {"event": "e", "properties": {"a": "[" * 1000}},
    {"event": "e", "properties": {"many": [{}] * 100}},
    sized(32 * 1024),
    {"event": "e", "timestamp": (NOW + DAY) // 1000},
    {"event": "e", "timestamp": "0001-01-01T00:00:00Z"},
    {"type": "page"},
    {"type": "screen", "name": "Home"},
    {"type": "identify", "userId": "u"},
    {"type": "identify", "anonymousId": "a", "traits": {"a": 1}},
    {"type": "group", "groupId": "g"},
    {"type": "alias", "userId": "u", "previousId": "p"},
    {"event": "e", "properties": None, "context": None},
]


@pytest.mark.parametrize("item", ACCEPTED, ids=range(len(ACCEPTED)))
def test_a_value_at_the_limit_is_valid(take, item):
    """Each limit is inclusive, and every type is valid with only its required fields."""
    assert not isinstance(take(dict(item)), Rejected)


REFUSED = [
    ({}, "event name is missing"),
    ({"event": ""}, "event name is empty"),
    ({"event": " \t"}, "event name is empty"),
    ({"event": "x" * 201}, "event name has 201 characters, the limit is 200"),
    ({"type": "page", "name": ""}, "event name is empty"),
    ({"type": "page", "name": "x" * 201}, "event name has 201 characters, the limit is 200"),
    ({"event": "e", "userId": ""}, "user_id has 0 characters, it must have 1 to 256"),
    ({"event": "e", "userId": "x" * 257}, "user_id has 257 characters, it must have 1 to 256"),
    ({"event": "e", "anonymousId": "x" * 257}, "anonymous_id has 257 characters, it must have 1 to 256"),
    ({"event": "e", "groupId": "x" * 257}, "group_id has 257 characters, it must have 1 to 256"),
    ({"event": "e", "sessionId": "x" * 257}, "session_id has 257 characters, it must have 1 to 256"),
    ({"event": "e", "source": "x" * 257}, "source has 257 characters, it must have 1 to 256"),
    ({"event": "e", "messageId": ""}, "message_id has 0 characters, it must have 1 to 100"),
    ({"event": "e", "messageId": "x" * 101}, "message_id has 101 characters, it must have 1 to 100"),
    ({"event": "e", "properties": nested(33)}, "properties are nested 33 deep, the limit is 32"),
    ({"event": "e", "context": nested(33)}, "context are nested 33 deep, the limit is 32"),
    (sized(32 * 1024 + 1), "event has 32769 bytes, the limit is 32768"),
    ({"event": "e", "timestamp": (NOW + DAY) // 1000 + 1}, "timestamp lies more than 24 hours ahead of received_at"),
    ({"event": "e", "timestamp": "9999-12-31T23:59:59Z"}, "timestamp lies more than 24 hours ahead of received_at"),
    ({"event": "e", "timestamp": "0001-01-01T00:00:00+01:00"}, "'0001-01-01T00:00:00+01:00' lies before the year 1"),
    ({"event": "e", "timestamp": "yesterday"}, "timestamp 'yesterday' is not an ISO 8601 time"),
    ({"event": "e", "timestamp": "2026-02-29"}, "timestamp '2026-02-29' is not an ISO 8601 time"),
    ({"event": "e", "timestamp": ""}, "timestamp '' is not an ISO 8601 time"),
    ({"event": "e", "timestamp": 1e15}, "is not a number of seconds or milliseconds since 1970"),
    ({"event": "e", "timestamp": 10**18}, "is not a number of seconds or milliseconds since 1970"),
    ({"event": "e", "timestamp": "2026-01-01", "sentAt": "soon"}, "sent_at 'soon' is not an ISO 8601 time"),
    ({"type": "identify"}, "identify needs a user_id or an anonymous_id"),
    ({"type": "group", "userId": "u"}, "group needs a group_id"),
    ({"type": "alias", "userId": "u"}, "alias needs a user_id and a previous_id"),
    ({"type": "alias", "previousId": "u"}, "alias needs a user_id and a previous_id"),
    ({"type": "alias", "userId": "u", "previousId": "x" * 257}, "previous_id has 257 characters"),
    ({"type": "click", "event": "e"}, "type 'click' is not one of track, page, screen, identify, group, alias"),
    ({"type": "", "event": "e"}, "type '' is not one of"),
    ({"event": "e", "properties": [1]}, "properties (or traits) must be a JSON object"),
    ({"type": "group", "groupId": "g", "traits": "x"}, "properties (or traits) must be a JSON object"),
    ({"event": "e", "context": 5}, "context must be a JSON object"),
]


@pytest.mark.parametrize(("item", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_a_value_beyond_a_limit_is_rejected_with_one_reason(take, item, reason):
    """A value one above a limit is invalid, and the reason names the field, the value and the limit."""
    rejected = take(dict(item))
    assert isinstance(rejected, Rejected)
    assert reason in rejected.reason


@pytest.mark.parametrize("field", ["event", "userId", "anonymousId", "groupId", "sessionId", "messageId", "source"])
def test_texts_with_a_lone_surrogate_are_refused(field):
    """A lone surrogate is not valid Unicode: rejected by field name in a struct and in a mapping, before the log."""
    item = {"event": "e", field: "a\ud800"}
    assert "not valid Unicode" in by_event(item).reason
    assert "surrogates not allowed" in by_mapping(item).reason


def test_a_category_or_previous_id_with_a_lone_surrogate_is_refused():
    """The same for texts that become properties."""
    assert "category is not valid Unicode" in by_event({"type": "page", "category": "\ud800"}).reason
    assert (
        "previous_id is not valid Unicode" in by_event({"type": "alias", "userId": "u", "previousId": "\ud800"}).reason
    )


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("2025-06-01T12:00:00Z", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2025-06-01T12:00:00.123456Z", datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2025-06-01T12:00:00.123Z", datetime(2025, 6, 1, 12, 0, 0, 123000, tzinfo=UTC)),
        ("2025-06-01T12:00:00.123456789Z", datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2025-06-01T14:00:00+02:00", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2025-06-01 12:00:00", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2025-06-01", datetime(2025, 6, 1, tzinfo=UTC)),
        ("20250601T120000Z", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("1969-12-31T23:59:59.5Z", datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000.25, datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)),
        (1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-86_400, datetime(1969, 12, 31, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_may_be_text_or_numbers(take, timestamp, moment):
    """ISO 8601 with any offset (naive is UTC), epoch seconds and milliseconds; any past back to the year 1."""
    event = take({"event": "e", "timestamp": timestamp})
    assert event.timestamp == (None if moment is None else to_us(moment))


@pytest.mark.parametrize("name", ["timestamp", "original_timestamp", "sent_at"])
def test_a_naive_datetime_is_refused(name):
    """A datetime without a time zone is rejected with a hint; the other events are stored."""
    naive, aware = datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)  # noqa: DTZ001 - naive on purpose
    rejected, event = decode_mappings([{"event": "e", name: naive}, {"event": "e", name: aware}], NOW)
    assert isinstance(rejected, Rejected)
    assert rejected.reason.endswith("2026-01-01T00:00:00 has no time zone: give it one, for example tzinfo=UTC")
    assert isinstance(event, Event)
    with pytest.raises(InvalidEvent, match="no time zone"):
        from_call("track", None, event="e", timestamp=naive)


def test_sent_at_corrects_the_clients_clock(take):
    """Segment's rule: timestamp = received_at - (sent_at - original_timestamp), for any error of the client's clock."""
    three_years_late = {"event": "e", "timestamp": "2023-01-01T00:00:00Z", "sentAt": "2023-01-01T00:00:05Z"}
    assert take(three_years_late).timestamp == NOW - 5_000_000
    years_ahead = {"event": "e", "originalTimestamp": "9999-12-31T23:59:00Z", "sentAt": "9999-12-31T23:59:59Z"}
    assert take(years_ahead).timestamp == NOW - 59_000_000
    offset = {"event": "e", "timestamp": "2026-01-01T01:00:00+01:00", "sentAt": 1_767_225_600}
    assert take(offset).timestamp == NOW


def test_a_timestamp_beside_an_original_one_is_not_corrected(take):
    """`originalTimestamp` is the client's clock; `timestamp` was corrected already, or set by the caller."""
    item = {"event": "e", "originalTimestamp": "2025-01-01T00:00:00Z", "sentAt": "2025-01-01T00:00:00Z"}
    assert take(item).timestamp == NOW
    assert take(item | {"timestamp": "2000-01-01"}).timestamp == to_us(datetime(2000, 1, 1, tzinfo=UTC))


def test_traits_in_the_context_of_identify_are_merged(take):
    """RudderStack's client for Python puts traits into the context; traits beside the ids take precedence."""
    item = {"type": "identify", "userId": "u", "context": {"traits": {"plan": "pro"}}}
    assert bytes(take(item).properties) == b'{"plan":"pro"}'
    assert bytes(take(item | {"traits": {"plan": "free"}}).properties) == b'{"plan":"free"}'
    assert bytes(take(item | {"traits": None}).properties) == b'{"plan":"pro"}'
    assert "must be a JSON object" in take(item | {"context": {"traits": 7}}).reason
    assert bytes(take(item | {"type": "track", "event": "e"}).properties) == b"{}"


def test_a_corrected_time_obeys_the_limits(take):
    """The limits of time also apply after the correction."""
    before = {"event": "e", "timestamp": "0001-01-01T00:00:00Z", "sentAt": "9999-01-01T00:00:00Z"}
    assert "lies before the year 1" in take(before).reason
    ahead = {"event": "e", "timestamp": "2026-01-03T00:00:01Z", "sentAt": "2026-01-02T00:00:00Z"}
    assert "more than 24 hours ahead" in take(ahead).reason
    assert take(ahead | {"timestamp": "2026-01-03T00:00:00Z"}).timestamp == NOW + DAY


def test_sent_at_without_a_timestamp_is_ignored(take):
    """An event without a time of its own happened when it was received."""
    assert take({"event": "e", "sentAt": "2020-01-01T00:00:00Z"}).timestamp is None


def test_all_types_share_one_schema(take):
    """Names of pages and screens become `event`; traits become properties; category and previousId join them."""
    page = take({"type": "page", "name": "Home", "category": "Docs", "properties": {"url": "x"}})
    assert (page.event, msgspec.json.decode(page.properties)) == ("Home", {"url": "x", "category": "Docs"})
    assert msgspec.json.decode(take({"type": "page", "category": "Docs"}).properties) == {"category": "Docs"}
    identify = take({"type": "identify", "userId": "u", "traits": {"email": "a@b.c"}, "properties": {"no": 1}})
    assert msgspec.json.decode(identify.properties) == {"email": "a@b.c"}
    group = take({"type": "group", "groupId": 5, "traits": {"name": "Acme"}})
    assert (group.group_id, msgspec.json.decode(group.properties)) == ("5", {"name": "Acme"})
    alias = take({"type": "alias", "userId": "u", "previousId": 7})
    assert msgspec.json.decode(alias.properties) == {"previousId": "7"}


@pytest.mark.parametrize("category", [{"category": "c"}, {}])
def test_properties_other_than_an_object_are_refused_beside_a_category(take, category):
    """A page's properties must be an object, whether or not a category joins them."""
    assert "must be a JSON object" in take({"type": "page", "properties": [1]} | category).reason


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": [1, {"b": float("-inf")}]},
        {"a": (float("inf"),)},
        {"a": "\ud800"},
        {"\udfff": 1},
        {"a": object()},
        {"a": 10**5000},
        {1.5: {(1, 2): 3}},
    ],
)
def test_a_value_that_json_cannot_represent_is_rejected(value):
    """Non-finite numbers, lone surrogates, unknown types and huge integers are errors: nothing is changed silently."""
    with pytest.raises(InvalidEvent):
        encode_object("properties", value)


def test_endless_mappings_are_refused():
    """Depth 100,000, or a mapping that contains itself, is an error, not a crash."""
    endless = {}
    endless["a"] = endless
    deep = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for value in (endless, deep):
        with pytest.raises(InvalidEvent, match="cannot be written as JSON"):
            encode_object("properties", value)


def test_null_is_kept_in_properties():
    """None inside properties stays null; None as properties is an empty object."""
    assert bytes(encode_object("properties", {"a": None, "b": [None, 1.5]})) == b'{"a":null,"b":[null,1.5]}'
    assert bytes(encode_object("properties", None)) == b"{}"


def test_the_arrow_form_has_every_field():
    """One row for each event, in order: consecutive seqs, one received_at, which is also the default timestamp."""
    full = {"type": "track", "event": "e", "userId": "u", "anonymousId": "a", "groupId": "g", "sessionId": "s"}
    full |= {
        "timestamp": "2020-01-01",
        "source": "web",
        "properties": {"a": 1},
        "context": {"b": "ü"},
        "messageId": "m",
    }
    made = [by_json(full), by_json({"type": "page", "messageId": "n"})]
    rows = EventBatch.of(made).to_record_batch([event.message_id for event in made], 41, NOW).to_pylist()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert rows == [
        {
            "seq": 41,
            "message_id": "m",
            "type": "track",
            "event": "e",
            "user_id": "u",
            "anonymous_id": "a",
            "group_id": "g",
            "session_id": "s",
            "timestamp": datetime(2020, 1, 1, tzinfo=UTC),
            "received_at": now,
            "source": "web",
            "properties": '{"a":1}',
            "context": '{"b":"ü"}',
        },
        dict.fromkeys(SCHEMA.names)
        | {"seq": 42, "message_id": "n", "type": "page", "timestamp": now, "received_at": now}
        | {"properties": "{}", "context": "{}"},
    ]


def test_the_schema_never_changes():
    """Names, types and Iceberg field ids of the base columns never change."""
    time = pa.timestamp("us", tz="UTC")
    kinds = {"seq": pa.int64(), "timestamp": time, "received_at": time}
    ids = "user_id anonymous_id group_id session_id"
    assert SCHEMA.names == f"seq message_id type event {ids} timestamp received_at source properties context".split()
    assert [field.type for field in SCHEMA] == [kinds.get(name, pa.string()) for name in SCHEMA.names]
    assert [int(field.metadata[b"PARQUET:field_id"]) for field in SCHEMA] == list(range(1, 14))
    required = {"seq", "message_id", "type", "timestamp", "received_at", "properties", "context"}
    assert {field.name for field in SCHEMA if not field.nullable} == required


def test_a_number_that_fits_no_float_is_found_everywhere():
    """NaN inside a dataclass or a Struct is an error as in a dict: msgspec would write it as null."""

    @dataclasses.dataclass
    class Price:
        amount: float

    class Cost(msgspec.Struct):
        amount: float

    for value in (Price(float("nan")), Cost(float("inf")), {"a": [Price(float("-inf"))]}):
        with pytest.raises(InvalidEvent, match="non-finite"):
            encode_object("properties", value)
    assert bytes(encode_object("properties", {"a": Price(1.5), "b": None})) == b'{"a":{"amount":1.5},"b":null}'
